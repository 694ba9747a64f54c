"""The fuzz driver finds what it is there to find: each kind of fault, planted in a reader, is told and kept."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import guided
from fuzz import target as targets
from fuzz.driver import Bounds, Run
from fuzz.findings import Finding, noted
from fuzz.outcome import ROOT, Outcome, fault_of_line, place_in_log
from fuzz.process import Child
from fuzz.tally import State, table

PLANTED = "_planted"
FAULTS = {
    "control": ("line", "control characters"),
    "lines": ("line", "several lines"),
    "long": ("line", "over 1000 characters"),
    "key": ("traceback", "KeyError"),
    "exit": ("traceback", "SystemExit"),
    "wrong": ("wrong", "AssertionError"),
    "address space": ("traceback", "MemoryError"),
    "memory": ("memory", ""),
    "signal": ("signal", "SIGSEGV"),
    "hang": ("hang", "tests/fuzz/targets/_planted.py:read"),
}


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(PLANTED, tmp_path_factory.mktemp("child"), 1, 64, hang_s=1.0) as found:
        yield found


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_found_with_its_place(text: str, child: Child, tmp_path: Path) -> None:
    path = tmp_path / "a.planted.txt"
    path.write_text(text)
    found = child.file(path)
    kind, told = FAULTS[text]
    assert found.kind == kind
    assert told in found.place
    path.write_text("fine")
    assert child.file(path).kind == "answer", "the next file is read as if nothing had been"


def test_a_refusal_is_a_pass(child: Child, tmp_path: Path) -> None:
    path = tmp_path / "a.planted.txt"
    path.write_text("refused")
    assert child.file(path).kind == "refused"


def test_a_run_goes_on_where_it_stopped_and_its_table_adds_up(tmp_path: Path) -> None:
    told: list[str] = []
    for n in (5, 7):  # two runs, as two processes
        state = State(tmp_path / "state.json")
        Run(PLANTED, state.tally(PLANTED, 1, "c"), state, tmp_path, told.append).go(Bounds(mutants=n))
    tally = State(tmp_path / "state.json").tally(PLANTED, 1, "c")
    assert (tally.next, tally.mutants) == (12, 12)
    target = targets.load(PLANTED)
    seeds = target.all_seeds(tmp_path / "seeds")
    keys = [number for number in range(12) if target.mutant(seeds, 1, number)[0] == b"key"]
    assert tally.counts["traceback"] == len(keys) > 1
    assert len(told) == len(tally.found) == 1, "one place, one finding, in both runs together"
    assert table([tally]).splitlines()[1].split()[:2] == [PLANTED, "12"]
    kept = [path for path in (tmp_path / PLANTED).iterdir() if not noted(path)]
    assert [path.read_bytes() for path in kept] == [b"key"]
    note = json.loads(kept[0].with_name(f"{kept[0].name}.json").read_text())
    assert note["number"] in keys, "whichever of two children came first"
    assert "--replay" in note["again"]


def test_a_mutant_is_made_of_its_number_alone(tmp_path: Path) -> None:
    for name in targets.names():
        target = targets.load(name)
        seeds = target.all_seeds(tmp_path / name)
        assert seeds
        for number in range(5):
            assert target.mutant(seeds, 3, number) == target.mutant(seeds, 3, number), (name, number)


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in targets.CORPUS.rglob("*") if path.is_file()) < 300 << 10


def test_guidance_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    monkeypatch.setattr(sys, "argv", ["guided", "gguf"])
    assert guided.main() == 1
    assert capsys.readouterr().err == f"error: {guided.MISSING}\n"


def test_what_one_clear_line_is() -> None:
    assert not fault_of_line("a.mp4: is no video; name another")
    assert [bool(fault_of_line(line)) for line in ("", "a\r\nb", "a\u2028b", "\u202eabc", "\udcff", "x" * 1001)] == [
        True
    ] * 6


def test_the_place_of_an_abort_is_what_was_asserted() -> None:
    log = (
        "/src/ggml/src/ggml.c:42: GGML_ASSERT(n > 0) failed\nFatal Python error: Aborted\n\n"
        'Current thread 0x00007f (most recent call first):\n  File "/x/site-packages/b/c.py", line 3 in load\n'
        '  File "/x/a.py", line 9 in main\n'
    )
    assert place_in_log(log) == "/src/ggml/src/ggml.c:42: GGML_ASSERT(n > 0) failed, b/c.py:load"


def test_a_finding_is_one_pair_of_files_however_often(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "a.planted.txt"
    path.write_text("key")
    outcome = child.file(path)
    names = {Finding(PLANTED, outcome, 1, number).save(tmp_path, b"key", ".planted.txt") for number in range(3)}
    assert len(names) == 1
    assert len(list((tmp_path / PLANTED).iterdir())) == 2


def test_a_note_tells_no_folder_of_the_machine(tmp_path: Path) -> None:
    shown = ("convert/vocab.py", "lib/python/pathlib.py", "TMP/a/x.gguf")
    here = (str(ROOT), sys.base_prefix, tempfile.gettempdir())
    files = [f"{folder}/{name.removeprefix('TMP/')}" for folder, name in zip(here, shown, strict=True)]
    outcome = Outcome("traceback", "here", "\n".join(f'File "{file}", line 1' for file in files))
    path = Finding("gguf", outcome, 1, 2).save(tmp_path, b"", ".gguf")
    told = json.loads(path.with_name(f"{path.name}.json").read_text())["told"]
    assert told == [f'File "{file}", line 1' for file in shown]
