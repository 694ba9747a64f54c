"""Lines for the user on stderr, and whether --debug was given. Answers and results go to stdout, not here."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from aim_local.visible import visible, visible_lines

from ._option_names import in_options

debug = False
_told = set[str]()  # warnings that are said once in a run
_LONGEST = 600  # characters of a word; a path may have many
_BREAK = re.compile(r"\s*\n\s*|\t")  # between the lines of a library's message
_INDENT = "  "  # of a message's second line on a terminal


def set_debug(wanted: bool) -> bool:
    """Callback of the --debug option."""
    global debug
    debug = wanted
    return wanted


def reset() -> None:
    """For a new run in the same process."""
    set_debug(False)
    _told.clear()


def say(line: str) -> None:
    """One line on stderr; a message of several lines becomes one. A terminal's width breaks it between words."""
    text = " ".join(shortened(word) for word in one_line(line).split(" ") if word)
    if sys.stderr is not None and sys.stderr.isatty():
        from ._wrap import columns, filled

        text = filled(text, columns(sys.stderr), _INDENT)
    _write(f"{text}\n")


def one_line(text: str) -> str:
    """`text` in one line that shows all of its characters: neither a file's name nor a model drives the terminal."""
    return visible(_BREAK.sub(" ", text))


def trace(e: BaseException) -> None:
    """The traceback of an error, for --debug."""
    import traceback

    _write(visible_lines("".join(traceback.format_exception(e))))


def prompt(text: str) -> None:
    """What stands before the user's words where they come as plain lines; a line end where they ended."""
    _write(text)


def table(line: str) -> None:
    """One line of ours whose blanks are kept."""
    _write(f"{line}\n")


def _write(text: str) -> None:
    if sys.stderr is not None:  # closed by the caller (2>&-)
        print(text, end="", file=sys.stderr, flush=True)


def shortened(word: str) -> str:
    """A word that nobody reads to its end, such as an argument of 10,000 characters, with its middle left out."""
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST // 2]}...{word[-_LONGEST // 4 :]}"


def error(message: object) -> None:
    """What went wrong, in the words of the command line."""
    say(f"error: {in_options(str(message))}")


def warn(warnings: Sequence[str], *, once: bool = False) -> None:
    """once: what is said now is not said again, beside every answer."""
    for warning in warnings:
        if warning not in _told:
            say(f"warning: {in_options(warning)}")
    if once:
        _told.update(warnings)
