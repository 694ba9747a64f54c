"""`run` with the bundled model: the same bytes alone, with workers, one of them killed, and however often it was."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from run_case import CLIPS, COMMAND, demo_rows, environment, rows_of, write_questions

from aim_local import VisionLLM, VisualTokenConfig
from aim_local.batch.answers import stats_path

N = 12


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("run") / "questions.jsonl", demo_rows(N))


@pytest.fixture(scope="module")
def alone(questions: Path) -> bytes:
    """What one worker writes."""
    out = questions.with_name("alone.jsonl")
    child = start(questions, out, "--quiet")
    assert ended(child) == (0, "")
    return out.read_bytes()


def start(questions: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "run", str(questions), "--out", str(out), *more]
    env = environment(questions.parent)  # one home for all runs: the later ones take encoded clips from its cache
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(child: subprocess.Popen[str], out: Path, n: int) -> None:
    """Until n questions are done. Fails where it ends before."""
    deadline = time.monotonic() + 120
    while not (stats_path(out).exists() and stats_path(out).read_bytes().count(b"\n") > n):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def workers_of(child: subprocess.Popen[str]) -> list[psutil.Process]:
    return [found for found in psutil.Process(child.pid).children() if "aim_local.batch.worker" in found.cmdline()]


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


def test_two_workers_one_killed(questions: Path, alone: bytes, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    child = start(questions, out, "--workers", "2", "--json")
    wait_for(child, out, 2)
    killed = workers_of(child)
    assert len(killed) == 2
    killed[0].kill()
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    assert json.loads(said) == {**json.loads(said), "n_questions": N, "n_answered": N, "n_errors": 0, "n_earlier": 0}
    assert out.read_bytes() == alone


def test_killed_at_any_moment_and_taken_up(questions: Path, alone: bytes, tmp_path: Path) -> None:
    """SIGKILL of the run at moments from a seed: whole lines, no worker left, the same bytes in the end."""
    out, chance, n = tmp_path / "answers.jsonl", random.Random(7), 0
    for _ in range(2):
        n = chance.randint(n, n + 3)
        child = start(questions, out, "--workers", "2", "--quiet")
        wait_for(child, out, n)
        time.sleep(chance.random() * 0.05)  # anywhere between two answers
        workers = workers_of(child)
        child.kill()
        child.communicate()
        assert not psutil.wait_procs(workers, timeout=20)[1], "a worker outlived its parent"
        assert alone.startswith(out.read_bytes() if out.exists() else b"")
        n = stats_path(out).read_bytes().count(b"\n")
    child = start(questions, out)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0
    assert said.splitlines()[-1].startswith(f"{N} of {N} answered (")
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


def test_another_clip_or_question_is_refused(tmp_path: Path) -> None:
    shutil.copy(CLIPS / "needle.mp4", tmp_path / "clip.mp4")
    rows = [{"video": "clip.mp4", "question": "What appears in the middle?"}]
    questions, out = write_questions(tmp_path / "q.jsonl", rows), tmp_path / "answers.jsonl"
    first = start(questions, out)
    first.communicate(timeout=60)
    before = out.read_bytes()
    os.utime(tmp_path / "clip.mp4")  # the same bytes at another time are the same clip
    assert ended(start(questions, out)) == (0, f"1 of 1 answered (1 of them before): {out}")
    write_questions(questions, [{**rows[0], "frames": 4}])
    code, said = ended(start(questions, out))
    assert (code, "was begun with other inputs: questions differs; put that back" in said) == (1, True)
    write_questions(questions, rows)
    shutil.copy(CLIPS / "order.mp4", tmp_path / "clip.mp4")
    code, said = ended(start(questions, out))
    assert (code, "was begun with other inputs: the clip clip.mp4 changed; put that back" in said) == (1, True)
    assert out.read_bytes() == before


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = child.communicate(timeout=60)
    return child.returncode, said.strip()
