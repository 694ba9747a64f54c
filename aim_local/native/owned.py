"""Native objects that are freed once, and refused afterwards: after their owner's end too, and in a forked process.

A pointer that was freed crashes whatever is given it, so nothing keeps one: who needs it asks here each time. What is
called without the model's turn, as its tokenizer is, holds it meanwhile against a close() in another thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..errors import ClosedError, NativeError, UsageError


class NotCopied:
    """For what stands for native objects: a copy would share them, and free them under the original."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """What copy, deepcopy and pickle ask. Raises UsageError."""
        name = type(self).__name__
        raise UsageError(f"a {name} cannot be copied or pickled, it is in this process alone; make another one")


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
        self._lock, self._n_users = threading.RLock(), 0
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

    @contextmanager
    def using(self) -> Iterator[Any]:
        """The pointer, which is not freed inside the block. Raises as `pointer` does."""
        with self._lock:
            pointer = self.pointer
            self._n_users += 1
        try:
            yield pointer
        finally:
            with self._lock:
                self._n_users -= 1
                is_last = not self._n_users and not self._pointers
            if is_last:  # it was closed meanwhile
                self._free_all(pointer)

    def close(self) -> None:
        """Frees what was made from it, then itself; where it is in use, when that ends. Idempotent, from any thread."""
        if os.getpid() != self._process:
            return
        with self._lock:
            try:
                pointer = self._pointers.pop()
            except IndexError:
                return
            is_used = bool(self._n_users)
        if not is_used:
            self._free_all(pointer)

    def _free_all(self, pointer: Any) -> None:
        for made in list(self._made):
            made.close()
        self._free(pointer)
        if self._owner is not None:
            self._owner._made.pop(self, None)


def pointer_of(given: Any) -> Any:
    """The pointer of an Owned, or of whatever else stands for one: ctypes' own, or an address."""
    return given.pointer if isinstance(given, Owned) else given
