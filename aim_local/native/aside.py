"""A native call that nothing stops, in a thread of its own: who waits for it can leave it to itself.

llama.cpp's grammars are such calls: one of a few words may have more ways to go on than a computer can count. A call
that was left goes on in its thread until it ends. As long as one does, no other is begun, so that they do not pile up,
and the model that it reads is not freed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import UsageError

T = TypeVar("T")
PATIENCE_S = 10.0
_STEP_S = 0.05  # between two looks at a wish to stop
_left: list[threading.Thread] = []


def is_busy() -> bool:
    """Whether a call that was left goes on."""
    _left[:] = [thread for thread in _left if thread.is_alive()]
    return bool(_left)


def aside(call: Callable[[], T], free: Callable[[], None], check: Callable[[], None]) -> T:
    """What `call` returns or raises. check: raises what the wait shall end with.

    free: called by the thread at the end of a call that was left, for what it worked on. Raises UsageError where the
    call takes more than 10 s, or one that was left still goes on.
    """
    if is_busy():
        raise UsageError("an earlier grammar is still being worked out; ask without a grammar or schema, or later")
    run = _Run(call, free)
    until = time.monotonic() + PATIENCE_S
    run.thread.start()
    try:
        while not run.ended.wait(_STEP_S):
            check()
            if time.monotonic() > until:
                raise UsageError(
                    f"the grammar has more ways to go on than can be tried in {PATIENCE_S:g} s; write it with fewer:"
                    " no repetition of what may be empty or overlaps with what follows"
                )
    except BaseException:
        if run.leave():
            _left.append(run.thread)
        raise
    return run.result()


class _Run(Generic[T]):
    def __init__(self, call: Callable[[], T], free: Callable[[], None]) -> None:
        self.thread = threading.Thread(target=self._work, name="aim-local grammar", daemon=True)
        self.ended = threading.Event()
        self._call, self._free, self._is_left = call, free, False
        self._found: list[T] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def _work(self) -> None:
        try:
            self._found.append(self._call())
        except BaseException as e:  # raised where it is waited for
            self._error = e
        with self._lock:
            self.ended.set()
            is_left = self._is_left
        if is_left:
            self._free()

    def leave(self) -> bool:
        """Whether it goes on, and frees what it works on by itself."""
        with self._lock:
            self._is_left = not self.ended.is_set()
            return self._is_left

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._found[0]
