"""How native calls end: the status numbers that both libraries return, and the exception each of them becomes.

The numbers are enum aim_status in patches/overlay/include/aim-status.h. The text of an error is for people: nothing is
decided by it.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p

from ..errors import AimError, ContextError, ModelError, NativeError, UsageError
from . import callbacks
from .binding import bind
from .library import libllama, libmtmd

OK, INVALID, UNSUPPORTED, CONTEXT_FULL, CALLBACK, ABORTED, FAILED = 0, -1, -2, -3, -4, -5, -6
_ERRORS: dict[int, type[AimError]] = {INVALID: UsageError, UNSUPPORTED: ModelError, CONTEXT_FULL: ContextError}


def error_of(status: int, text: str) -> AimError:
    """The exception for a status below zero. ABORTED is a NativeError: what stopped the call is with the StopHook."""
    return _ERRORS.get(status, NativeError)(text)


class Outcome:
    """How this thread's last call into one of the libraries ended."""

    def __init__(self, lib: ctypes.CDLL, last_error: str, last_status: str) -> None:
        self._text, self._status = bind(lib, last_error, [], c_char_p), bind(lib, last_status, [])

    def text(self) -> str:
        """Why it failed, one line; "" if it did not."""
        text: bytes = self._text()
        return text.decode(errors="replace")

    def error(self) -> AimError:
        """The exception for a call that failed without returning a number (null, false)."""
        return error_of(self._status(), self.text())

    def checked(self, result: int) -> int:
        """The number a call returned; raises what a callback raised in it, or the exception for a status below zero."""
        callbacks.reraise()
        if result < 0:
            raise error_of(result, self.text())
        return result


# const char * aim_last_error(void)
# int32_t      aim_last_status(void)
LLAMA = Outcome(libllama, "aim_last_error", "aim_last_status")
# const char * aim_mtmd_last_error(void)
# int32_t      aim_mtmd_last_status(void)
MTMD = Outcome(libmtmd, "aim_mtmd_last_error", "aim_mtmd_last_status")
