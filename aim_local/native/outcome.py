"""How native calls end: the status numbers that our libraries return, and the exception each of them becomes.

The numbers are enum aim_status in patches/overlay/include/aim-status.h. The text of an error is for people: nothing is
decided by it.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p

from ..errors import AimError, ContextError, ModelError, NativeError, UsageError
from . import callbacks
from .binding import bind

OK, INVALID, UNSUPPORTED, CONTEXT_FULL, CALLBACK, ABORTED, FAILED, NO_MEMORY = 0, -1, -2, -3, -4, -5, -6, -7
_ERRORS: dict[int, type[AimError]] = {INVALID: UsageError, UNSUPPORTED: ModelError, CONTEXT_FULL: ContextError}
NO_ROOM = (
    "not enough memory; what was loaded can still be used: ask again with fewer frames or a smaller n_ctx, take a "
    "more strongly quantised model, or end other programs"
)


def error_of(status: int, text: str, name: str = "") -> AimError:
    """The exception for a status below zero. ABORTED is a NativeError: what stopped the call is with the StopHook.

    name: of the function, for messages.
    """
    where = f" in {name}" if name else ""
    if status == NO_MEMORY:
        return NativeError(NO_ROOM.replace(";", f"{where};", 1))
    return _ERRORS.get(status, NativeError)(f"llama.cpp failed{where}: {' '.join(text.split())}" if name else text)


class Outcome:
    """How this thread's last call into one of the libraries ended."""

    def __init__(self, lib: ctypes.CDLL, last_error: str, last_status: str) -> None:
        self._text, self._status = bind(lib, last_error, [], c_char_p), bind(lib, last_status, [])

    def text(self) -> str:
        """Why it failed, one line; "" if it did not."""
        text: bytes = self._text()
        return text.decode(errors="replace")

    def status(self) -> int:
        return int(self._status())

    def failed(self) -> bool:
        return self.status() < OK

    def error(self, name: str = "") -> AimError:
        """The exception for a call that failed without returning a number (null, false)."""
        return error_of(self.status(), self.text(), name)

    def text_of(self, result: bytes | None) -> str:
        """The text a call returned; raises the exception for a null."""
        if result is None:
            raise self.error()
        return result.decode()

    def checked(self, result: int) -> int:
        """The number a call returned; raises what a callback raised in it, or the exception for a status below zero."""
        callbacks.reraise()
        if result < 0:
            raise error_of(result, self.text())
        return result
