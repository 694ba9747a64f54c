"""Lines for the user on stderr, and whether --debug was given. Answers and results go to stdout, not here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ._option_names import in_options

debug = False
_told = set[str]()  # warnings that are said once in a run
_LONGEST = 600  # characters of a word; a path may have many
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
    if sys.stderr is None:  # closed by the caller (2>&-)
        return
    text = " ".join(shortened(word) for word in printable(line).split())
    if sys.stderr.isatty():
        from ._wrap import columns, filled

        text = filled(text, columns(sys.stderr), _INDENT)
    print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` with control codes as \\x1b: neither a file's name nor a model drives the terminal."""
    return "".join(c if c.isspace() or not (ord(c) < 32 or 127 <= ord(c) < 160) else f"\\x{ord(c):02x}" for c in text)


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
