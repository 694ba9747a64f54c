"""One answer in the making: progress bars, then its text as it streams, and Ctrl-C at any time.

Knows the terminal; what is asked, and of whom, is the caller's business.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from ._progress import Bars


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


class Turn:
    """A context manager around one answer; `on_text` and `progress` are the callbacks for the library."""

    def __init__(self, bars: bool, text: bool = True) -> None:
        self._bars = Bars(wanted=bars)
        self._interrupts = Interrupts()
        self._text = text
        self._at_line_start = True

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()
        self._interrupts.__exit__(kind, e, trace)
        if not self._at_line_start:
            print(flush=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._bars(stage, done, total)
        self._interrupts.check()

    def on_text(self, piece: str) -> None:
        """The bars go before the first piece; a terminal gets no control codes."""
        text = printable(piece) if sys.stdout is not None and sys.stdout.isatty() else piece
        if self._text and text:
            self._bars.stop()
            self._at_line_start = text.endswith("\n")
            print(text, end="", flush=True)
        self._interrupts.check()


def printable(text: str) -> str:
    """`text` without control codes: a model must not be able to drive the terminal."""
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))
