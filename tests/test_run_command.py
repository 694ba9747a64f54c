"""The command `run`: bad input is one line, --skip-bad and --retry-errors, --json, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from cli_case import one_line, run
from run_case import CLIPS, FAKE_WORKER, rows_of, write_questions

from aim_local.batch import process

ASKED = {"video": "clip.mp4", "question": "What happens?"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(process, "COMMAND", ("-c", FAKE_WORKER))
    shutil.copy(CLIPS / "time.mp4", tmp_path / "clip.mp4")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--workers", "0"], 2, "--workers is 0; give 1 or more"),
        (["--workers", "2", "--cluster", "tcp://x:1"], 2, "drop it with --cluster"),
        (["--temp", "0.5"], 2, "--temp is 0.5 without a seed; give one (--seed 1)"),
        (["--tokens", "papre"], 2, "setting 'papre' is unknown"),
        (["--out", "nowhere/answers.jsonl"], 1, "the folder nowhere does not exist"),
        (["nosuchmodel"], 1, "no model called 'nosuchmodel'"),
    ],
)
def test_bad_input_is_one_line(folder: Path, options: list[str], code: int, said: str) -> None:
    questions = write_questions(folder / "q.jsonl", [ASKED])
    out = [] if "--out" in options else ["--out", folder / "answers.jsonl"]
    assert said in one_line(run("run", questions, *out, *options), code)
    assert not (folder / "answers.jsonl").exists()


def test_without_out(folder: Path) -> None:
    assert "--out" in one_line(run("run", write_questions(folder / "q.jsonl", [ASKED])), 2)


def test_bad_lines(folder: Path) -> None:
    """Each is told before anything runs; with --skip-bad they are errors among the answers."""
    questions, out = write_questions(folder / "q.jsonl", ["{", ASKED, {**ASKED, "video": "no.mp4"}]), folder / "a.jsonl"
    result = run("run", questions, "--out", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["line 1", "line 3", "error"]
    assert not out.exists()
    result = run("run", questions, "--out", out, "--skip-bad", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["n_questions"], found["n_answered"], found["n_errors"]) == (3, 1, 2)
    assert result.stderr.splitlines()[-1] == (
        f"error: 2 of 3 questions ended in an error, see {out}; --retry-errors asks them again"
    )
    assert "2 of 3 lines cannot be asked" in result.stderr
    assert "answered before" not in result.stderr
    first, second, third = rows_of(out)
    assert first["error"].startswith("line 1: is not JSON")
    assert second == {"id": "2", "text": "What happens?"}
    assert third == {"id": "3", "error": "line 3: video no.mp4: no such file; check the name and the folder"}


def test_many_bad_lines_are_not_all_told(folder: Path) -> None:
    result = run("run", write_questions(folder / "q.jsonl", ["{"] * 50), "--out", folder / "a.jsonl")
    assert len(result.stderr.splitlines()) == 22
    assert "... and 30 more" in result.stderr


def test_errors_are_asked_again_when_that_is_wanted(folder: Path) -> None:
    mark, out = folder / "mark", folder / "a.jsonl"
    questions = write_questions(folder / "q.jsonl", [ASKED, {**ASKED, "question": "die"}, ASKED])
    result = run("run", questions, "--out", out, "--workers", "2")
    assert result.exit_code == 1
    assert "2: the process that answered ended 2 times: killed by SIGKILL" in result.stderr
    assert [sorted(line) for line in rows_of(out)] == [["id", "text"], ["error", "id"], ["id", "text"]]
    before = out.read_bytes()
    assert run("run", questions, "--out", out).exit_code == 1
    assert (out.read_bytes(), mark.exists()) == (before, False)
    assert run("run", questions, "--out", out, "--retry-errors").exit_code == 1  # dies again, in its place
    assert out.read_bytes() == before
    rows = rows_of(out.with_name("a.jsonl.stats"))
    assert [row.get("index") for row in rows if "made_from" not in row].count(1) == 2


def test_answered_before(folder: Path) -> None:
    questions, out = write_questions(folder / "q.jsonl", [ASKED]), folder / "a.jsonl"
    assert run("run", questions, "--out", out).stderr.splitlines() == ["note: loaded", f"1 of 1 answered: {out}"]
    assert run("run", questions, "--out", out).stderr.splitlines() == [f"1 of 1 answered (1 of them before): {out}"]
    assert run("run", questions, "--out", out, "--quiet").stderr == ""
    assert "--max-tokens was 512 and is 9" in one_line(run("run", questions, "--out", out, "--max-tokens", "9"), 1)


def test_another_clip_or_question_is_refused(folder: Path) -> None:
    out = folder / "a.jsonl"
    questions = write_questions(folder / "q.jsonl", [ASKED])
    assert run("run", questions, "--out", out).exit_code == 0
    before = out.read_bytes()
    os.utime(folder / "clip.mp4", (1, 1))  # the same bytes at another time are the same clip
    assert run("run", questions, "--out", out).exit_code == 0
    write_questions(questions, [{**ASKED, "frames": 4}])
    refused = one_line(run("run", questions, "--out", out), 1)
    assert f"{out}: was begun with other inputs: questions differs; put that back" in refused
    write_questions(questions, [ASKED])
    shutil.copy(CLIPS / "order.mp4", folder / "clip.mp4")
    refused = one_line(run("run", questions, "--out", out), 1)
    assert f"{out}: was begun with other inputs: the clip clip.mp4 changed; put that back" in refused
    assert out.read_bytes() == before


def test_without_dask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    questions = write_questions(folder / "q.jsonl", [ASKED])
    said = one_line(run("run", questions, "--out", folder / "a.jsonl", "--cluster", "tcp://127.0.0.1:1"), 1)
    assert said == (
        "error: a cluster needs the package distributed; run in the source folder: pip install -e '.[cluster]'"
    )
