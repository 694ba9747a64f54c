"""`run` with the bundled model: the same bytes alone, with workers, one of them killed, and however often it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from cli_case import run as run_command
from run_case import COMMAND, asked, demo_rows, environment, rows_of, user_folder, write_questions
from thorough import few

from aim_local import VisionLLM, VisualTokenConfig, store
from aim_local.batch.answers import stats_path
from aim_local.batch.job import Outcome, Settings, job_of
from aim_local.batch.local import LocalWorkers
from aim_local.batch.process import Worker
from aim_local.batch.questions import Question
from aim_local.batch.run import run

N = 12


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("run") / "questions.jsonl", demo_rows(N))


@pytest.fixture(scope="module")
def alone(questions: Path) -> bytes:
    """What one worker writes."""
    out = questions.with_name("alone.jsonl")
    with user_folder(questions.parent):
        assert run_command("run", questions, "--out", out, "--quiet").exit_code == 0
    return out.read_bytes()


def start(questions: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "run", str(questions), "--out", str(out), *more]
    env = environment(questions.parent)  # one home for all runs: the later ones take encoded clips from its cache
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(child: subprocess.Popen[str], out: Path, n: int) -> None:
    """Until n questions are done, or all. Fails where it ends before."""
    deadline = time.monotonic() + 120
    while not (stats_path(out).exists() and stats_path(out).read_bytes().count(b"\n") > min(n, N)):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def workers_of(pid: int) -> list[psutil.Process]:
    return [found for found in psutil.Process(pid).children() if "aim_local.batch.worker" in found.cmdline()]


def test_the_answers_are_the_models(questions: Path, alone: bytes) -> None:
    """The same as from the library, one by one; times are in the sidecar only."""
    out = questions.with_name("alone.jsonl")
    lines = rows_of(out)
    assert [line["id"] for line in lines] == [row.get("id", str(i + 1)) for i, row in enumerate(demo_rows(N))]
    with VisionLLM.load() as llm:
        for i, tokens in ((0, None), (1, VisualTokenConfig.paper())):
            row = demo_rows(N)[i]
            answer = llm.generate(row["question"], [row["video"]], tokens)
            assert (lines[i]["text"], lines[i]["n_visual"]) == (answer.text, answer.stats.n_visual)
    assert lines[2]["n_frames"] == 4
    assert b"_ms" not in alone
    stats = rows_of(stats_path(out))
    assert stats[0]["made_from"]["max_tokens"] == 512
    assert sorted(row["index"] for row in stats[1:]) == list(range(N))
    assert all(row["facts"]["stats"]["ttft_ms"] > 0 and row["facts"]["seconds"] > 0 for row in stats[1:])


def test_two_workers_one_killed(questions: Path, alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL of one at its second question, the other at work too; times have their place, the answers the same bytes.

    The one is held there: workers may be far ahead of the thread that takes their answers.
    """
    out, paths = tmp_path / "answers.jsonl", store.resolve()
    workers = LocalWorkers(job_of(paths, Settings(), share=2), 2)
    answer, n_asked = Worker.answer, Counter[str]()

    def hold_and_kill() -> None:
        held = workers_of(os.getpid())[0]
        held.suspend()
        threading.Timer(0.2, held.kill).start()

    both = threading.Barrier(2, hold_and_kill)

    def answer_once_both_are_there(worker: Worker, index: int, question: Question) -> Outcome:
        n_asked[worker.name] += 1
        if n_asked[worker.name] == 2:
            both.wait(timeout=60)
        return answer(worker, index, question)

    monkeypatch.setattr(Worker, "answer", answer_once_both_are_there)
    summary = run(asked(questions), out, paths, Settings(), workers)
    assert (summary.n_answered, summary.n_errors, summary.n_earlier) == (N, 0, 0)
    assert out.read_bytes() == alone
    facts = [row["facts"] for row in rows_of(stats_path(out))[1:]]
    assert {one["worker"] for one in facts} == {"worker 1", "worker 2"}
    assert sorted(one["tries"] for one in facts) == [1] * (N - 1) + [2]
    assert not workers_of(os.getpid())


@pytest.mark.parametrize("seed", few([7, 8, 9], 1))
def test_killed_at_any_moment_and_taken_up(questions: Path, alone: bytes, tmp_path: Path, seed: int) -> None:
    """SIGKILL of the run at moments from a seed: whole lines, no worker left, the same bytes in the end."""
    out, chance, n = tmp_path / "answers.jsonl", random.Random(seed), 0
    for workers_asked in ("2", "1"):
        n = chance.randint(n, n + 3)
        child = start(questions, out, "--workers", workers_asked, "--quiet")
        wait_for(child, out, n)
        time.sleep(chance.random() * 0.05)  # anywhere between two answers
        workers = workers_of(child.pid)
        child.kill()
        child.communicate()
        assert not psutil.wait_procs(workers, timeout=20)[1], "a worker outlived its parent"
        assert alone.startswith(out.read_bytes() if out.exists() else b"")
        n = stats_path(out).read_bytes().count(b"\n")
    result = run_command("run", questions, "--out", out)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1].startswith(f"{N} of {N} answered (")
    assert out.read_bytes() == alone


def test_ctrl_c(questions: Path, alone: bytes, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    child = start(questions, out, "--quiet")
    wait_for(child, out, 1)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.splitlines() == [
        f"what is answered is kept in {out}; the same command goes on from there",
        "interrupted",
    ]
    assert 1 <= out.read_bytes().count(b"\n") < N
    assert alone.startswith(out.read_bytes())


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = child.communicate(timeout=120)
    return child.returncode, said.strip()
