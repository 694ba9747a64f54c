"""Results on stdout: the only place that prints there (stderr is _log.py's), so that nothing drives a terminal.

What others wrote (names, strings of GGUF files, answers) has its control characters as escapes, on a terminal and in a
pipe, which may end in one: see aim_local/visible.py. A stdout that is no UTF-8 gets escapes for what it cannot hold.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

from aim_local.visible import answer_text, json_text, visible


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def line(text: str = "", *, now: bool = False) -> None:
    """One line of a result; a line end in a name does not end it. now: a reader waits for it."""
    _write(f"{visible(text)}\n", now=now)


def own(text: str) -> None:
    """Lines of ours with no word of anybody else's: help, a script."""
    _write(f"{text}\n")


def piece(text: str) -> None:
    """Of an answer as it streams, after `answer`."""
    _write(text, now=True)


def answer(text: str) -> str:
    """What a model said, as it may stand on this stdout."""
    return answer_text(text, terminal=on_terminal())


def json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON value; indent: None for a line of a stream."""
    is_utf8 = getattr(sys.stdout, "encoding", None) in ("utf-8", "UTF-8", "utf8")
    _write(f"{json_text(value, indent=indent, ensure_ascii=not is_utf8, default=str)}\n", now=indent is None)


def confirm(question: str, *, default: bool) -> bool:
    """Asks on stderr."""
    return typer.confirm(visible(question), default=default, err=True)


def _write(text: str, *, now: bool = False) -> None:
    print(text, end="", flush=now)
