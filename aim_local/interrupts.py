"""A program's whole life under Ctrl-C: whenever it comes, the program ends with exit code 130 and without a traceback.

For our programs (`aim-local`, `python -m aim_local.demo`), from their first line to the end of the process. Importing
the library changes no handler: what a Ctrl-C does in somebody else's program is theirs to say. Knows signals; what the
program does is a function to it. Nothing heavy is imported here, it is the first that is.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in aim_local/__init__.py
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Any, NoReturn
else:
    import _signal as signal  # the part of it that is loaded in a moment

CTRL_C = ("interrupted", 130)  # what is said, and the exit code
_others: list[tuple[str, int]] = []  # of signals that interrupts stood for
_AGAIN_S = 0.05  # between a Ctrl-C that was lost and the next try


def run(program: Callable[[], int]) -> NoReturn:
    """Runs a program to its exit code, and ends the process with it; with 130 where Ctrl-C stopped it.

    While `program` runs, it calls `listen` when it has begun what an interrupt has to end in order: from then on
    Ctrl-C raises KeyboardInterrupt. Before and afterwards it ends the process at once: there is nothing to lose.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or another's
        signal.signal(signal.SIGINT, _leave)
    sys.excepthook, sys.unraisablehook = _excepthook, _unraisable
    try:
        try:
            code = program()
        finally:
            _stop_listening()
    except KeyboardInterrupt:  # while another was told, or behind the program's end
        _stop_listening()
        code = ending()[1]
    sys.exit(code)


def listen() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, for a program that `run` has started, and stands for itself."""
    _others.clear()
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stand_for(words: str, code: int) -> None:
    """The interrupts from now on stand for another signal: what is said in the end, and the exit code."""
    _others.append((words, code))


def ending() -> tuple[str, int]:
    """What an interrupted program says, and its exit code: of the first signal that interrupts stood for."""
    return _others[0] if _others else CTRL_C


def _stop_listening() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the process at once: imports and the interpreter's own end are not asked whether they can be interrupted."""
    words, code = ending()
    try:
        os.write(2, f"{words}\n".encode())
    finally:  # stderr may be closed
        os._exit(code)


def _excepthook(kind: type[BaseException], e: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _leave(signal.SIGINT, None)
    sys.__excepthook__(kind, e, trace)


def _unraisable(lost: Any) -> None:
    """A KeyboardInterrupt that was raised where Python can raise nothing (a finalizer, a callback) comes once more."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    import threading

    again = threading.Timer(_AGAIN_S, _press)
    again.daemon = True
    again.start()


def _press() -> None:
    """Ctrl-C, for the main thread: a real signal, which wakes it where it waits in a call of the system."""
    import threading

    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
