"""SIGTERM and SIGHUP: they end work as Ctrl-C does, so that nothing half-written stays; only the exit code differs.

What Ctrl-C does at the moment is for others to say (_interrupt.py, the libraries): it is sent on to them. A command may
take SIGTERM for itself while it runs (serve, watch).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from aim_local import interrupts

_WORDS = {"SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}


def listen() -> None:
    """From now on. A signal that the caller has ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in no other
        return
    for name in _WORDS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _pass_on)


def _pass_on(number: int, frame: FrameType | None) -> None:
    interrupts.stand_for(_WORDS[signal.Signals(number).name], 128 + number)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):  # as a shell starts what it sends to
        raise KeyboardInterrupt  # the background
    signal.raise_signal(signal.SIGINT)


def check() -> None:
    """Raises KeyboardInterrupt where the process was told to end: for what goes on after a Ctrl-C."""
    if interrupts.ending() != interrupts.CTRL_C:
        raise KeyboardInterrupt
