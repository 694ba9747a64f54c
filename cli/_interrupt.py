"""Ctrl-C: noted at a safe place, told, and an exit code. Every command gets what it needs of that from here."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from aim_local.results import Stats

INTERRUPTIONS: tuple[type[BaseException], ...] = (KeyboardInterrupt,)  # what stopped work ends with


def is_interruption(e: BaseException) -> bool:
    """Whether the user stopped the work. Abort is what typer makes of Ctrl-C; each version has a class of its own."""
    return isinstance(e, INTERRUPTIONS) or type(e).__name__ == "Abort"


def was_stopped(stats: Stats) -> bool:
    """Whether Ctrl-C ended an answer early."""
    return stats.stop_reason == "interrupted"


def check_answer(stats: Stats) -> None:
    """Raises KeyboardInterrupt where Ctrl-C ended the answer early, for the exit code."""
    if was_stopped(stats):
        raise KeyboardInterrupt


class Interrupts:
    """While active, Ctrl-C is noted, and raised as KeyboardInterrupt by the next `check`.

    The native libraries call back into Python (their log does), and an exception raised in there is lost. A second
    Ctrl-C is raised at once, for work that never reports.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt
        self._noted = True

    def check(self) -> None:
        """Raises KeyboardInterrupt, once, after Ctrl-C."""
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt
