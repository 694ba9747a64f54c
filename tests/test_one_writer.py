"""One process at a time writes an output: the second is told who is at it, before anything of the first is touched."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_case import one_line, run
from run_case import CLIPS, write_questions

from aim_local.batch.answers import Answers
from aim_local.errors import AimError
from aim_local.lab.compare.demo_suite import draw_demo_suite
from aim_local.lab.compare.workspace import Folder, Workspace
from aim_local.store.fetched import forget_fetched, note_fetched, was_fetched
from aim_local.store.locks import held, lock_beside

pytest.importorskip("fcntl")

WHO = rf"\({os.getpid()}, since \d+-\d+-\d+ \d+:\d+:\d+\)"
SPAWN = multiprocessing.get_context("spawn")


def test_a_second_comparison_touches_nothing(tmp_path: Path) -> None:
    """It would draw another suite in the place of the first one's."""
    out = tmp_path / "out"
    suite = draw_demo_suite(out / "suite", 2)
    before = suite.read_bytes()
    with Folder(out):
        error = one_line(run("compare", "--demo", "--n", "3", "--seed", "9", "--out", out), 1)
    assert re.search(rf"another comparison is running there, process {WHO}; wait for it, or name another", error)
    assert suite.read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["lock", "suite"]


def test_a_folder_that_was_made_for_nothing_goes(tmp_path: Path) -> None:
    one_line(run("compare", "--suite", tmp_path / "none.jsonl", "--out", tmp_path / "out"), 1)
    assert list(tmp_path.iterdir()) == []


def test_a_second_quantiser(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    out = tmp_path / "q.gguf"
    with held(lock_beside(out), AimError, stays=False):
        model = CLIPS.parent / "model" / "model.gguf"
        error = one_line(run("quantize", model, out, "--type", "q8_0", "--quiet"), 1)
    assert re.search(rf"q\.gguf is being written by another process {WHO}; wait for it", error)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with Answers(out, {"a": 1}, ["1"]):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        questions = write_questions(
            tmp_path / "questions.jsonl", [{"video": str(CLIPS / "order.mp4"), "question": "What?"}]
        )
        error = one_line(run("run", questions, "--out", out, "--quiet"), 1)
        questions.unlink()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert re.search(rf"another run is writing it, process {WHO}; wait for its end", error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "answers.jsonl.stats"]


def _begin(folder: Path, gate: object, found: object) -> None:
    """Begins a comparison together with others, and holds it until all have tried."""
    gate.wait()  # type: ignore[attr-defined]
    try:
        with Folder(folder):
            Workspace(folder)
            found.put("held")  # type: ignore[attr-defined]
            gate.wait()  # type: ignore[attr-defined]
    except AimError as e:
        found.put(str(e))  # type: ignore[attr-defined]
        gate.wait()  # type: ignore[attr-defined]


def test_of_several_that_begin_together_one_goes_on(tmp_path: Path) -> None:
    gate, found = SPAWN.Barrier(2), SPAWN.Queue()
    processes = [SPAWN.Process(target=_begin, args=(tmp_path / "out", gate, found)) for _ in range(2)]
    for process in processes:
        process.start()
    said = sorted(found.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert said[-1] == "held"
    assert all("another comparison is running there" in line for line in said[:-1]), said


def test_a_lock_that_a_killed_process_left_is_free(tmp_path: Path) -> None:
    lock = lock_beside(tmp_path / "out")
    lock.write_text(f"{2**22 + 1} 2026-01-01 00:00:00 elsewhere")
    with held(lock, AimError, stays=False):
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "n" * 255, "\u00e4\u20ac\U0001f3a5" * 20])
def test_locks_of_long_names(tmp_path: Path, name: str) -> None:
    with held(lock_beside(tmp_path / name), AimError, stays=False):
        pass
    assert lock_beside(tmp_path / f"{'n' * 60}a") != lock_beside(tmp_path / f"{'n' * 60}b")


def test_a_note_on_a_fetched_file_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pull notes a file while `models rm` writes the record anew."""
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.touch()
    note_fetched(old)
    process = SPAWN.Process(target=note_fetched, args=(new,))
    from aim_local.store import fetched

    real: Callable[[], list[list[object]]] = fetched._lines

    def read_while_another_notes() -> list[list[object]]:
        found = real()
        if not process.pid:
            process.start()
            process.join(2)  # it waits for the record where that is held
        return found

    monkeypatch.setattr(fetched, "_lines", read_while_another_notes)
    forget_fetched([old])
    process.join()
    assert process.exitcode == 0
    assert was_fetched(new)
    assert not was_fetched(old)
