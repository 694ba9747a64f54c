"""What the native libraries log: kept out of the terminal, its last error lines kept for our messages."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .library import llama, mtmd

_ERROR, _CONT = 4, 5  # enum ggml_log_level
_recent: deque[str] = deque(maxlen=20)
_state = {"echo": False, "least": 0, "level": 0}
_listeners: list[list[str]] = []


def _on_log(level: int, text: bytes, _user_data: Any) -> None:
    line = text.decode("utf-8", "replace") if text else ""
    if level != _CONT:
        _state["level"] = level
    if _state["level"] >= _ERROR and line.strip():
        _recent.append(line.strip())
    for lines in _listeners:
        lines.append(line)
    if _state["echo"] and _state["level"] >= _state["least"]:
        sys.stderr.write(line)


_callback = llama.llama_log_callback(_on_log)  # kept: ctypes callbacks die with their last reference


def _install() -> None:
    llama.llama_log_set(_callback, None)
    mtmd.mtmd_log_set(_callback, None)
    mtmd.mtmd_helper_log_set(_callback, None)


_install()


def echo_native_log(on: bool = True, *, errors_only: bool = False) -> None:
    """Passes everything llama.cpp logs, or its errors, on to stderr."""
    _state["echo"], _state["least"] = on, _ERROR if errors_only else 0


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Everything that is logged inside the block, piece by piece."""
    lines: list[str] = []
    _install()
    _listeners.append(lines)
    try:
        yield lines
    finally:
        _listeners.remove(lines)


def clear() -> None:
    """Before a native call: its errors only. Installs the callback again, other users of llama_cpp set theirs."""
    _install()
    _recent.clear()


def last_error(default: str = "llama.cpp gave no reason") -> str:
    """The first error line since the last clear(): the cause, later lines only say that loading failed."""
    return _recent[0] if _recent else default
