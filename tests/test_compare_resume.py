"""What an interrupted comparison keeps, and the files it keeps it in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import compare_case
import pytest
from cli_case import run
from compare_case import ENVIRONMENT, SHORT, cells_here, item_row, lines
from thorough import few

from aim_local import VisualTokenConfig
from aim_local.errors import AimError
from aim_local.lab.compare import runner
from aim_local.lab.compare.job import Job
from aim_local.lab.compare.records import Suite
from aim_local.lab.compare.workspace import CellFolder, Folder, Workspace, parts, safe_name
from aim_local.store import digests

suite_file = compare_case.suite_file
suite = compare_case.suite
here = compare_case.here

# --- interrupted -----------------------------------------------------------------------------------------------------

COMPARE = [sys.executable, "-P", "-c", "from aim_local.cli import main; main()", "compare"]
Kills = tuple[tuple[str, int], ...]
REFERENCE, LATER = (("demo / off", 2),), (("demo / paper", 3),)  # cell, and the lines it has when the run is killed


@pytest.mark.parametrize("kills", few([LATER, (*REFERENCE, *LATER)], 1), ids=["later", "reference and later"])
def test_killed_and_resumed_gives_the_same(
    suite_file: Path, tmp_path: Path, kills: tuple[tuple[str, int], ...]
) -> None:
    """kill -9 in a cell, with a line cut in two: after the reference cell, and in the reference cell before that."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    command = ["compare", "--suite", str(suite_file), "--tokens", "off,paper", "--max-tokens", "6", "--quiet"]
    with cells_here():
        assert run(*command, "--out", whole).exit_code == 0
    for key, n in kills:
        items = out / "cells" / safe_name(key) / "items.jsonl"
        _kill_when([*COMPARE, *command[1:], "--out", str(out)], items, n)
        with open(items, "ab") as file:
            file.write(b'{"id": "cut in t')
    assert len(lines_of(items)) < 7
    with cells_here():
        result = run(*command, "--json", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert lines(out) == lines(whole)
    assert [cell["status"] for cell in json.loads(result.stdout)["cells"]] == ["done"] * 2
    assert comparable(out) == comparable(whole)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def comparable(out: Path) -> list[dict[str, Any]]:
    """A report's cells without times and memory."""
    timed = ("ttft_ms", "stages", "prefill_tps", "decode_tps", "peak_rss_bytes")
    found = json.loads((out / "report.json").read_text())["cells"]
    return [{k: v for k, v in cell.items() if k not in timed} for cell in found]


def _kill_when(command: list[str], items: Path, n: int) -> None:
    """Starts, and kills the process once `items` has n lines."""
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (items.exists() and items.read_bytes().count(b"\n") >= n):
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.usefixtures("here")
def test_a_changed_setting_runs_that_cell_only(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int]] = []
    real = runner.run_process

    def noted(job: Job, *rest: Any) -> str:
        started.append((job.setting, len(job.tasks)))
        return real(job, *rest)

    monkeypatch.setattr(runner, "run_process", noted)
    few = replace(suite, items=suite.items[:2])
    runner.compare(few, tmp_path / "out", settings=["off", "random"], options=SHORT)
    runner.compare(few, tmp_path / "out", settings=["off", "random", "random:seed=1"], options=SHORT)
    assert started == [("off", 2), ("random", 2), ("random:seed=1", 2)]
    # the name means something else now
    monkeypatch.setitem(sys.modules["aim_local.settings"].PRESETS, "random", VisualTokenConfig(merge_retain=0.5))
    notes = Notes()
    runner.compare(few, tmp_path / "out", settings=["off", "random"], options=SHORT, watch=notes)
    assert started[3:] == [("random", 2)]
    assert notes.lines[0].startswith("demo / random: setting changed since its last run; its results are set aside in")
    folder = tmp_path / "out" / "cells" / safe_name("demo / random")
    assert len(lines_of(folder / "items.previous.jsonl")) == len(lines_of(folder / "items.jsonl")) == 2


class Notes(runner.Watch):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.usefixtures("here")
def test_missing_reference_logits_are_made_again(suite: Suite, tmp_path: Path) -> None:
    few, out = replace(suite, items=suite.items[:2]), tmp_path / "out"
    runner.compare(few, out, settings=["off"], options=SHORT)
    (out / "reference" / "logits" / "1.npy").unlink()
    report = runner.compare(few, out, settings=["off", "paper"], options=SHORT)
    assert [c.status for c in report.cells] == ["done", "done"]
    assert report.cells[1].divergence is not None


def test_two_processes_do_not_share_a_folder(suite: Suite, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Folder(out), pytest.raises(AimError) as caught:
        runner.compare(suite, out, settings=["off"], options=SHORT)
    assert re.fullmatch(
        rf"{out}: another comparison is running there, process \({os.getpid()}, since [-0-9]+ [:0-9]+\); "
        "wait for it, or name another folder with out=DIR",
        str(caught.value),
    )


def test_ctrl_c(suite_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*COMPARE, "--suite", str(suite_file), "--tokens", "off", "--max-tokens", "6", "--out", str(out)]
    child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    items = out / "cells" / safe_name("demo / off") / "items.jsonl"
    while not (items.exists() and items.stat().st_size):
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate()
    assert child.returncode == 130
    assert said.splitlines()[-2:] == [
        f"what is answered is kept in {out}; the same command goes on from there",
        "interrupted",
    ]
    (cell,) = json.loads((out / "report.json").read_text())["cells"]
    assert cell["status"] == "partial"
    assert 1 <= cell["n_done"] < 6


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path / "cell")
    assert folder.adopt({"a": 1}) == []
    folder.keep([item_row("one"), item_row("two")])
    with open(folder.items, "ab") as file:
        file.write(b'{"id": "thr')
    assert [row.id for row in folder.rows()] == ["one", "two"]
    assert folder.items.read_bytes().endswith(b"}\n")
    assert folder.adopt({"a": 1}) == []
    assert folder.adopt({"a": 2, "b": 1}) == ["a", "b"]
    assert folder.rows() == []


def test_hashes_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    monkeypatch.setattr(digests, "_YOUNG_NS", 0)  # the file is new, and a new one is read again
    digest = hashlib.sha256(b"one").hexdigest()
    assert Workspace(tmp_path / "out").sha256(path) == digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
    assert Workspace(tmp_path / "out").sha256(path) == digest
    monkeypatch.undo()
    path.write_bytes(b"other")
    assert Workspace(tmp_path / "out").sha256(path) == hashlib.sha256(b"other").hexdigest()


def test_names_of_cells_and_parts() -> None:
    names = {safe_name(key) for key in ("a / budget=0.1", "a / budget=0,1", "a/b / off", "a b / off", "../x / off")}
    assert len(names) == 5
    assert not any("/" in name or name.startswith(".") for name in names)
    split = Path("m-00001-of-00003.gguf")
    assert [p.name for p in parts(split)] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert parts(Path("m.gguf")) == [Path("m.gguf")]
