"""The prompt's history: whatever lies in its place, the prompt comes at once, and what is not kept is said."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from aim_local.cli import _reader

PATIENCE_S = 10


def opened(path: Path) -> tuple[str, list[str]]:
    """The kind of history, and what was told of it; a wait without end is a failure."""
    told, found = list[str](), list[str]()

    def work() -> None:
        found.append(type(_reader.open_history(path, told.append)).__name__)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert found, "it waits"
    return found[0], told


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "it is no file"),
    "a pipe": (lambda path: os.mkfifo(path), "it is no file"),
    "without an end": (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
    "a link to itself": (lambda path: path.symlink_to(path), "levels of symbolic links|symlink|Symlink|no file"),
    "100 MiB": (large, "it has more than 8 MiB; remove it"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize(("make", "why"), ODD.values(), ids=ODD)
def test_what_is_no_history(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    make(tmp_path / "history")
    kind, (line,) = opened(tmp_path / "history")
    assert kind == "InMemoryHistory"
    assert line.startswith(f"{tmp_path / 'history'}: questions are not kept for the next time (")
    assert any(words in line for words in why.split("|"))


def test_a_folder_above_it_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kind, told = opened(tmp_path / "file" / "history")
    assert (kind, len(told)) == ("InMemoryHistory", 1)


def test_who_wants_none_hears_nothing(tmp_path: Path) -> None:
    (tmp_path / "history").symlink_to(os.devnull)
    assert opened(tmp_path / "history") == ("InMemoryHistory", [])


@pytest.mark.parametrize(
    "data", [b"\n# x\n+a\0b\n", b"\n+\xff\xfe\xed\xa0\x80\n", b"\n+\x1b]52;c;AA\x07\n", b"+" * 5000]
)
def test_bytes_that_nobody_typed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "history").write_bytes(data)
    assert opened(tmp_path / "history") == ("FileHistory", [])
    with create_pipe_input() as keys:
        reader = _reader.TerminalReader(tmp_path / "history", input=keys, output=DummyOutput())
        keys.send_text("hello\r")
        assert reader.read() == "hello"
    assert (tmp_path / "history").read_bytes().startswith(data)
