"""What is said when llama.cpp gives up: one line, instead of a trace of its functions and a debugger.

It gives up where a file or a fault of its own leaves it no way back; the process ends then. Knows the last words alone.
What can be found in a file before llama.cpp sees it: models/head.py, models/text_head.py, native/rehearsal.py.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from typing import Any

_NO_TRACE = "GGML_NO_BACKTRACE"  # read when the libraries are loaded, for exceptions that nobody catches
_ADVICE = "; the model's file may be damaged: download or convert it again"
_exit = {"code": 0}
_behind = {"advice": _ADVICE}
# typedef void (*ggml_abort_callback_t)(const char * error_message)
_callback_type = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


def before_loading() -> None:
    os.environ.setdefault(_NO_TRACE, "1")


def install(base: ctypes.CDLL) -> None:
    """base: libggml-base."""
    setter: Any = base.aim_set_abort_callback
    setter.argtypes, setter.restype = [_callback_type], None
    setter(_callback)


def exit_with(code: int) -> None:
    """For programs: they end with this exit code, not by the signal SIGABRT."""
    _exit["code"] = code


def leave_advice() -> None:
    """For a process whose parent says what to do."""
    _behind["advice"] = ""


def described(message: str) -> str:
    """One line for what ggml says: "/a/b/ggml.c:12: GGML_ASSERT(x) failed"."""
    text = " ".join(re.sub(r"^\S*[/\\\\]", "", message.strip()).split())
    return f"llama.cpp gave up ({text}){_behind['advice']}"


def _on_abort(message: bytes | None) -> None:
    line = described((message or b"").decode(errors="replace"))
    try:
        sys.stderr.write(f"error: {line}\n")
        sys.stderr.flush()
    finally:
        if _exit["code"]:
            os._exit(_exit["code"])


_callback = _callback_type(_on_abort)  # kept: ctypes callbacks die with their last reference
