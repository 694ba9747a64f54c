"""One answer in the making: progress bars, then its text as it streams, and Ctrl-C at any time.

Knows the terminal; what is asked, and of whom, is the caller's business.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from . import _out
from ._interrupt import Interrupts
from ._progress import Bars
from ._wrap import Wrapper, columns


class Turn:
    """A context manager around one answer; its methods are the callbacks for the library."""

    def __init__(self, bars: bool, text: bool = True) -> None:
        self._bars = Bars(wanted=bars)
        self._interrupts = Interrupts()
        self._text = text
        self._at_line_start = True
        self._on_terminal = _out.on_terminal()
        self._wrapper = Wrapper(self._write, lambda: columns(sys.stdout))

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()
        self._interrupts.__exit__(kind, e, trace)
        self._wrapper.finish()
        if not self._at_line_start:
            _out.piece("\n")

    def progress(self, stage: str, done: int, total: int) -> None:
        self._bars(stage, done, total)
        self._interrupts.check()

    def should_stop(self) -> bool:
        """Asked while native code computes, about every 50 ms. Raises KeyboardInterrupt after Ctrl-C, else False."""
        self._interrupts.check()
        return False

    def on_text(self, piece: str) -> None:
        """The bars go before the first piece; a terminal gets whole words, and its lines' ends."""
        text = _out.answer(piece)
        if self._text and text:
            self._bars.stop()
            if self._on_terminal:
                self._wrapper.feed(text)
            else:
                self._write(text)
        self._interrupts.check()

    def _write(self, text: str) -> None:
        self._at_line_start = text.endswith("\n")
        _out.piece(text)
