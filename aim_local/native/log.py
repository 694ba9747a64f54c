"""What the native libraries log: kept out of the terminal, a thread's last error lines kept for its messages."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from typing import Any

from ..visible import visible_lines
from .callbacks import as_callback
from .library import llama, mtmd
from .outcome import NO_ROOM

_ERROR, _CONT = 4, 5  # enum ggml_log_level
_echo = {"on": False, "least": 0}


class _Lines(threading.local):
    """What one thread's native calls logged: two models in two threads do not see each other's errors."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=20)
        self.level = 0  # of the line being written, which may come in pieces


_lines = _Lines()


def _on_log(level: int, text: bytes, _user_data: Any) -> None:
    """Called by the libraries, on whichever thread logs."""
    line = text.decode("utf-8", "replace") if text else ""
    if level != _CONT:
        _lines.level = level
    if _lines.level >= _ERROR and line.strip():
        _lines.errors.append(line.strip())
    if _echo["on"] and _lines.level >= _echo["least"]:
        sys.stderr.write(visible_lines(line))


# kept: ctypes callbacks die with their last reference
NATIVE = as_callback(llama.llama_log_callback, _on_log)


def _install() -> None:
    """Once, and again where another program's callback is there: setting it is a race with all threads that log."""
    there = llama.llama_log_callback()
    llama.llama_log_get(ctypes.byref(there), ctypes.byref(ctypes.c_void_p()))
    if ctypes.cast(there, ctypes.c_void_p).value == ctypes.cast(NATIVE, ctypes.c_void_p).value:
        return
    llama.llama_log_set(NATIVE, None)
    mtmd.mtmd_log_set(NATIVE, None)
    mtmd.mtmd_helper_log_set(NATIVE, None)


_install()


def echo_native_log(on: bool = True, *, errors_only: bool = False) -> None:
    """Passes everything llama.cpp logs, or its errors, on to stderr."""
    _echo["on"], _echo["least"] = on, _ERROR if errors_only else 0


def clear() -> None:
    """Before a native call of this thread: its errors only. Installs the callback again, others may have set theirs."""
    _install()
    _lines.errors.clear()


def last_error(default: str = "llama.cpp gave no reason") -> str:
    """This thread's first error line since its last clear(): the cause, later lines only say that loading failed."""
    if any("std::bad_alloc" in line for line in _lines.errors):
        return NO_ROOM
    return _lines.errors[0] if _lines.errors else default
