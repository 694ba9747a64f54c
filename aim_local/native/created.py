"""Making native objects, which takes a while and logs: a Ctrl-C meanwhile is raised afterwards, and is not lost.

What is made step by step asks `interrupted` in between, and gives up.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from . import callbacks, log
from .room import check_room

_pressed: list[int] = []  # since the main thread began to make what it makes


def interrupted() -> bool:
    """Whether a Ctrl-C waits for what this thread is making."""
    return bool(_pressed) and threading.current_thread() is threading.main_thread()


def created(make: Callable[[], Any], free: Callable[[Any], None]) -> Any:
    """What `make` returns, null if it fails; log.last_error() says why.

    The libraries call Python for each line they log, and a KeyboardInterrupt that is raised in there goes nowhere. So
    Python's own handler is replaced meanwhile; what was made is freed before the interrupt is raised.
    Raises NativeError where the address space has no room before, or none to go on with afterwards.
    """
    check_room()
    made = _uninterrupted(make, free)
    try:
        check_room()
    except BaseException:
        if made:
            free(made)
        raise
    return made


def _uninterrupted(make: Callable[[], Any], free: Callable[[Any], None]) -> Any:
    log.clear()
    main = threading.current_thread() is threading.main_thread()  # no other gets signals, or may set handlers
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return _whole(make(), free)
    made = None
    try:
        signal.signal(signal.SIGINT, lambda number, _: _pressed.append(number))
        made = make()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed = bool(_pressed)
        _pressed.clear()
    if pressed:
        if made:
            free(made)
        raise KeyboardInterrupt
    return _whole(made, free)


def _whole(made: Any, free: Callable[[Any], None]) -> Any:
    """`made`, freed where a callback raised meanwhile, and that raised."""
    try:
        callbacks.reraise()
    except BaseException:
        if made:
            free(made)
        raise
    return made
