"""Native objects that are freed once, and refused afterwards: after their owner's end too, and in a forked process.

A pointer that was freed crashes whatever is given it, so nothing keeps one: who needs it asks here each time.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from ..errors import ClosedError, NativeError


class Owned:
    """A pointer of a native library. what: for messages, with its article. free: frees it, called once.

    owner: what it was made from, which frees it first when that ends. holder: the Python object that stands for it; it
    is freed when nobody has that any more. Nothing is freed in a forked process: what it sees there is its parent's.
    """

    def __init__(
        self,
        what: str,
        pointer: Any,
        free: Callable[[Any], None],
        *,
        owner: Owned | None = None,
        holder: object | None = None,
    ) -> None:
        self._what, self._free, self._owner, self._process = what, free, owner, os.getpid()
        self._pointers = [pointer]  # a list: taking the last one out of it is one step for all threads
        self._made: dict[Owned, None] = {}  # from this one
        if owner is not None:
            owner._made[self] = None
        if holder is not None:
            weakref.finalize(holder, self.close).atexit = False

    @property
    def pointer(self) -> Any:
        """Raises ClosedError when it was freed, NativeError in a forked process."""
        if os.getpid() != self._process:
            raise NativeError(
                f"{self._what} was made before this process was forked, and cannot be used here; load the model in "
                'this process, or start it with multiprocessing\'s "spawn"'
            )
        try:
            return self._pointers[0]
        except IndexError:
            raise ClosedError(f"{self._what} is closed; load the model, or begin the conversation, again") from None

    @property
    def is_closed(self) -> bool:
        return not self._pointers

    def close(self) -> None:
        """Frees what was made from it, then itself. Idempotent, from any thread."""
        if os.getpid() != self._process:
            return
        for made in list(self._made):
            made.close()
        try:
            pointer = self._pointers.pop()
        except IndexError:
            return
        self._free(pointer)
        if self._owner is not None:
            self._owner._made.pop(self, None)


def pointer_of(given: Any) -> Any:
    """The pointer of an Owned, or of whatever else stands for one: ctypes' own, or an address."""
    return given.pointer if isinstance(given, Owned) else given
