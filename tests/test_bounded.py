"""Text that a user names or pipes is read up to a bound: what never ends is one line, within a bounded memory."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_local.batch.questions import read_questions
from aim_local.batch.rows import read_text
from aim_local.bounded import MOST_LINE, MOST_QUESTIONS, MOST_TEXT, bounded_bytes, bounded_lines
from aim_local.errors import AimError, SuiteError, UsageError
from aim_local.lab.compare.suite import find_suite
from cli._question import question_from
from cli._reader import PlainReader
from cli.serve import ListenOptions
from convert.checkpoint import MAX_JSON, Checkpoint
from convert.errors import ConvertError

ENDLESS = Path("/dev/zero")


class Endless(io.StringIO):
    """A stream that never ends, and counts what was taken of it."""

    def __init__(self, piece: str = "x") -> None:
        super().__init__()
        self.piece, self.n = piece, 0

    def read(self, size: int | None = -1, /) -> str:
        assert size is not None
        assert size >= 0, "asked for all of what never ends"
        self.n += size
        return (self.piece * size)[:size]

    readline = read  # type: ignore[assignment]


def test_a_question_without_end() -> None:
    stdin = Endless()
    with pytest.raises(UsageError, match=r"question from stdin: it has more than 8,388,608 characters; ask in fewer"):
        question_from(None, stdin)
    assert stdin.n == MOST_TEXT + 1
    assert question_from(None, io.StringIO("x" * MOST_TEXT)) == "x" * MOST_TEXT


def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = Endless()
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(UsageError, match="stdin: a line has more than 8,388,608 characters; ask in fewer words"):
        PlainReader().read()
    assert stdin.n == MOST_TEXT + 1


def link(path: Path) -> Path:
    path.symlink_to(ENDLESS)
    return path


NAMED: dict[str, Callable[[Path], object]] = {
    "questions": lambda folder: read_questions(ENDLESS),
    "suite": lambda folder: find_suite(ENDLESS),
    "suite.jsonl": lambda folder: find_suite(link(folder / "a.jsonl")),
    "suite.json": lambda folder: find_suite(link(folder / "a.json"), folder),
    "keys": lambda folder: ListenOptions(api_key_file=ENDLESS).keys(),
}


@pytest.mark.skipif(not ENDLESS.exists(), reason="this system has no /dev/zero")
@pytest.mark.parametrize("name", NAMED)
def test_a_file_without_end(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("aim_local.batch.rows", "aim_local.lab.compare.suites_published"):
        monkeypatch.setattr(f"{module}.MOST_QUESTIONS", 32 << 20)
    with pytest.raises(AimError, match=r"has more than \d+ MiB; (a file of questions|give|name)") as caught:
        NAMED[name](tmp_path)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_end(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(SuiteError, match="it is no regular file"):
        find_suite(link(tmp_path / "a.parquet"), tmp_path)


def test_the_text_of_a_checkpoint_too_long(tmp_path: Path) -> None:
    path = tmp_path / "chat_template.jinja"
    path.write_text("x")
    os.truncate(path, MAX_JSON + 1)
    with pytest.raises(ConvertError, match=r"cannot be read .*more than 64 MiB"):
        Checkpoint(tmp_path, {}, {}).text(path.name)


def test_questions_through_a_pipe(tmp_path: Path) -> None:
    """As a shell's <(command): it is read once, to its end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('\ufeff{"image": "a.png", "question": "What?"}\n\n',))
    writer.start()
    asked = read_questions(pipe)
    writer.join()
    assert [line.id for line in asked.lines] == ["1"]


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"abc\n\nab\r\nc")
    assert list(bounded_lines(path, 4, 10)) == [b"abc", b"", b"ab\r", b"c"]
    with pytest.raises(ValueError, match="line 1 has more than 0 MiB"):
        list(bounded_lines(path, 3, 100))
    with pytest.raises(ValueError, match="it has more than 0 MiB"):
        list(bounded_lines(path, 4, 9))
    assert bounded_bytes(path, 10) == path.read_bytes()


def test_a_line_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"{}\n" + b" " * (MOST_LINE + 1))
    with pytest.raises(SuiteError, match=re.escape(f"{path}: line 2 has more than 16 MiB; a file of questions has")):
        read_questions(path)


def test_a_file_of_questions_too_long(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[")
    os.truncate(path, MOST_QUESTIONS + 1)
    with pytest.raises(SuiteError, match="it has more than 256 MiB"):
        read_text(path)
