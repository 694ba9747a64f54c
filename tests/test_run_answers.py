"""ANSWERS.jsonl and its sidecar: the same bytes in the end wherever a run was killed and whatever was cut off."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local.batch.answers import Answers, stats_path
from aim_local.batch.files import good_lines
from aim_local.batch.job import Outcome
from aim_local.errors import AimError
from aim_local.visible import json_text

MADE_FROM = {"model": ["ab" * 32], "max_tokens": 64, "frames": None}
IDS = ("1", "zwei", "3", "vier \u2028", "5", "6")


def outcome(index: int, *, broken: bool = False) -> Outcome:
    line = {"id": IDS[index], **({"error": "gone"} if broken else {"text": f"süß \U0001f600 {index} \u2028 \n"})}
    return Outcome(index, line, {"seconds": index / 3})


def whole(n: int = len(IDS)) -> bytes:
    return b"".join(json_text(outcome(i).line).encode() + b"\n" for i in range(n))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def write(out: Path, found: Sequence[Outcome], made_from: dict[str, Any] = MADE_FROM) -> None:
    with Answers(out, made_from, IDS) as answers:
        for one in found:
            answers.add(one)


def finish(out: Path) -> set[int]:
    """Adds what is not there; returns what was."""
    with Answers(out, MADE_FROM, IDS) as answers:
        there = set(answers.done)
        answers.write()
        assert whole().startswith(out.read_bytes())
        for index in range(len(IDS)):
            if index not in there:
                answers.add(outcome(index))
    return there


@settings(max_examples=examples(60), deadline=None)
@given(st.permutations(range(len(IDS))), st.integers(0, len(IDS)), st.data())
def test_any_order_and_any_cut(order: Sequence[int], n: int, data: st.DataObject) -> None:
    """Killed after n outcomes in any order, then both files cut at any byte behind the sidecar's first line."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answers.jsonl"
        write(out, [outcome(index) for index in order[:n]])
        assert whole().startswith(out.read_bytes())
        assert out.read_bytes().count(b"\n") == next(i for i in range(7) if i not in order[:n])
        stats = stats_path(out)
        first = len(stats.read_bytes().split(b"\n")[0]) + 1
        kept = data.draw(st.integers(first, stats.stat().st_size))
        with open(stats, "r+b") as file:
            file.truncate(kept)
        with open(out, "r+b") as file:
            file.truncate(data.draw(st.integers(0, out.stat().st_size)))
        n_rows = stats.read_bytes().count(b"\n") - 1
        assert finish(out) == set(order[:n_rows])
        assert out.read_bytes() == whole()
        assert finish(out) == set(range(len(IDS)))
        assert out.read_bytes() == whole()


def test_a_line_is_there_as_soon_as_all_before_it_are(out: Path) -> None:
    with Answers(out, MADE_FROM, IDS) as answers:
        for index, n in ((1, 0), (2, 0), (0, 3), (4, 3), (3, 5)):
            answers.add(outcome(index))
            assert out.read_bytes() == whole(n)


def test_an_answers_file_that_was_removed_is_written_again(out: Path) -> None:
    write(out, [outcome(i) for i in range(6)])
    out.unlink()
    assert finish(out) == set(range(6))
    assert out.read_bytes() == whole()


def test_errors_are_asked_again_in_their_place(out: Path) -> None:
    write(out, [outcome(0), outcome(1, broken=True), outcome(2), outcome(3, broken=True), outcome(4)])
    with Answers(out, MADE_FROM, IDS) as answers:
        answers.forget_errors()
        assert set(answers.done) == {0, 2, 4}
        assert out.read_bytes() == whole(1)
        answers.add(outcome(1))
        assert out.read_bytes() == whole(3)
    assert finish(out) == {0, 1, 2, 4}
    assert out.read_bytes() == whole()


# --- refused ----------------------------------------------------------------------------------------------------------


def refused(out: Path, made_from: dict[str, Any] = MADE_FROM) -> str:
    before = {path: path.read_bytes() for path in out.parent.iterdir()}
    with pytest.raises(AimError) as error:
        Answers(out, made_from, IDS)
    assert {path: path.read_bytes() for path in out.parent.iterdir()} == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_other_inputs(out: Path) -> None:
    write(out, [outcome(0)])
    assert refused(out, {**MADE_FROM, "max_tokens": 32, "model": ["cd" * 32], "frames": 4}) == (
        f"{out}: was begun with other inputs: model differs, max_tokens was 64 and is 32, frames was not given and "
        "is 4; put that back, name another file with out=FILE, or remove answers.jsonl and answers.jsonl.stats to "
        "begin anew"
    )


def test_a_file_of_someone_elses(out: Path) -> None:
    out.write_text("my notes\n")
    assert "is there, but not answers.jsonl.stats" in refused(out)
    stats_path(out).write_text("")
    assert "is there, but not answers.jsonl.stats" in refused(out)
    stats_path(out).write_text('{"a": 1}\n')
    assert "is no record of a run" in refused(out)


def test_a_line_that_was_edited(out: Path) -> None:
    write(out, [outcome(0), outcome(1)])
    data = out.read_bytes()
    out.write_bytes(data.replace(b"zwei", b"drei"))
    assert f"{out}: line 2 is not what this run wrote" in refused(out)
    out.write_bytes(data + b"more\n")
    assert f"{out}: line 3 is not what this run wrote" in refused(out)


def test_one_run_at_a_time(out: Path) -> None:
    with Answers(out, MADE_FROM, IDS):
        assert "another run is writing it" in refused(out)
    assert finish(out) == set()


@pytest.mark.parametrize(("name", "said"), [("no/answers.jsonl", "does not exist"), (".", "is a folder")])
def test_places(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(AimError, match=said):
        Answers(tmp_path / name, MADE_FROM, IDS)
    assert not list(tmp_path.iterdir())


# --- lines ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=8).map(lambda data: data.replace(b"\n", b"")), max_size=6), st.data())
def test_good_lines(lines: list[bytes], data: st.DataObject) -> None:
    """Whole lines stay, the rest goes, and a second look finds the same."""
    text = b"".join(line + b"\n" for line in lines)
    kept = data.draw(st.integers(0, len(text)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        path.write_bytes(text[:kept])
        n = text[:kept].count(b"\n")
        assert good_lines(path, lambda line: line) == lines[:n]
        assert path.read_bytes() == b"".join(line + b"\n" for line in lines[:n])
        assert good_lines(path, lambda line: None if line == lines[0] else line) == [] or not n


# --- what is not ours, and what a disk does ---------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", [b"my notes", b"my notes\nmore\n", b'{"a": 1}\nmore', b"\x00\xff"])
@pytest.mark.parametrize("answers", [None, b"old\nlines"])
def test_nothing_is_cut_from_files_that_are_not_ours(out: Path, theirs: bytes, answers: bytes | None) -> None:
    """Their sidecar was emptied, and made ours."""
    stats_path(out).write_bytes(theirs)
    if answers is not None:
        out.write_bytes(answers)
    assert str(out) in refused(out)


def test_a_record_that_a_kill_cut_in_its_first_line(out: Path) -> None:
    write(out, [])
    stats_path(out).write_bytes(stats_path(out).read_bytes()[:20])
    assert finish(out) == set()
    assert out.read_bytes() == whole()


def test_a_damaged_line_in_the_middle(out: Path) -> None:
    """What follows it is not thrown away without a word."""
    write(out, [outcome(i) for i in range(4)])
    lines = stats_path(out).read_bytes().split(b"\n")
    lines[2] = lines[2][:-9]
    stats_path(out).write_bytes(b"\n".join(lines))
    assert f"{stats_path(out)}: line 3 is damaged" in refused(out)


def test_answers_that_are_not_ours_keep_their_last_line(out: Path) -> None:
    write(out, [outcome(0)])
    out.write_bytes(b"strange\nhalf")
    assert "line 1 is not what this run wrote" in refused(out)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no fifos")
def test_a_fifo_is_no_place(tmp_path: Path) -> None:
    """It hung."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(AimError, match="is no regular file"):
        Answers(tmp_path / "fifo", MADE_FROM, IDS)


@pytest.mark.parametrize("file", ["answers", "sidecar"])
def test_a_disk_that_is_full_for_a_while(out: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Half a line stayed, and the next one went behind it: the run could not be taken up."""
    real, full = os.write, True
    with Answers(out, MADE_FROM, IDS) as answers:
        fd, n = answers._stats if file == "sidecar" else answers._lines, 0

        def write_some(to: int, data: bytes) -> int:
            nonlocal n
            n += to == fd
            if full and to == fd and n > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(to, data[:10] if full and to == fd else data)

        answers.add(outcome(0))
        monkeypatch.setattr(os, "write", write_some)
        with pytest.raises(OSError, match="No space left"):
            answers.add(outcome(1))
        full = False
        answers.add(outcome(2))
    assert finish(out) >= {0, 2}
    assert out.read_bytes() == whole()
