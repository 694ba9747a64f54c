"""`--pick` for those who measure: compare and bench take the frames that a question about the clip would."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_case import run

from aim_local.lab.bench import benchmark
from aim_local.lab.bench.benchmark import BenchConfig
from aim_local.lab.bench.session import Session
from aim_local.lab.compare import cell, runner
from aim_local.lab.compare.job import Options, Task
from aim_local.media import FrameSampling


class _Seen(Exception):
    pass


def test_a_comparison_asks_with_it() -> None:
    asked: list[FrameSampling] = []

    def score(*_: Any, sampling: FrameSampling, **__: Any) -> None:
        asked.append(sampling)
        raise _Seen

    llm: Any = SimpleNamespace(default_frames=4, score=score)
    item: Any = SimpleNamespace(start=None, end=2.0, media=("a.mp4",), question="?", options=(), choices=())
    for pick in ("auto", "time", "index"):
        job: Any = SimpleNamespace(role="reference", setting="off", options=Options(pick=pick))
        with pytest.raises(_Seen):
            cell.ask(llm, job, Task(0, item))
    assert asked == [FrameSampling(4, end=2.0, pick=pick) for pick in ("auto", "time", "index")]


def test_results_of_other_frames_are_others() -> None:
    assert Options(pick="time").result_facts() != Options().result_facts()


def test_compare_hands_it_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Options] = []

    def comparison(*_: Any, options: Options, **__: Any) -> None:
        found.append(options)
        raise _Seen

    monkeypatch.setattr(runner, "compare", comparison)
    clip, suite = Path(__file__).parents[1] / "aim_local" / "data" / "clips" / "time.mp4", tmp_path / "suite.jsonl"
    suite.write_text(json.dumps({"media": str(clip), "question": "Which?", "answer": "a"}) + "\n")
    run("compare", "--suite", suite, "--out", tmp_path / "out", "--pick", "time", "--frames", "4")
    assert [options.pick for options in found] == ["time"]


def test_bench_hands_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[BenchConfig] = []

    def bench(config: BenchConfig, say: Any) -> None:
        found.append(config)
        raise _Seen

    monkeypatch.setattr(benchmark, "run_bench", bench)
    run("bench", "--pick", "time")
    run("bench")
    assert [config.pick for config in found] == ["time", "auto"]


def test_a_session_reads_with_it() -> None:
    session = object.__new__(Session)
    session._pick = "index"
    assert session._sampling(3) == FrameSampling(3, pick="index")
