"""Lines for the user on stderr, and whether --debug was given. Answers and results go to stdout, not here."""

from __future__ import annotations

import sys
from collections.abc import Sequence

debug = False


def set_debug(wanted: bool) -> bool:
    """Callback of the --debug option."""
    global debug
    debug = wanted
    return wanted


def say(line: str) -> None:
    """One line on stderr; a message of several lines becomes one."""
    if sys.stderr is not None:  # closed by the caller (2>&-)
        print(" ".join(line.split()), file=sys.stderr, flush=True)


def warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")
