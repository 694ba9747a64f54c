"""One call at a time: callers from many threads wait for their turn, in order; a call can be stopped from outside.

Native contexts and the vision tower must not be used by two threads at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import CancelledError, ClosedError, UsageError
from ..native.stop import StopHook

ShouldStop = Callable[[], bool]

_WAIT = 0.05  # seconds between two looks at should_stop while waiting


class Turns:
    """Guards one model. A callback of a call may call the model again, in the same thread."""

    def __init__(self, name: str, hook: StopHook) -> None:
        self._name, self._hook = name, hook
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0
        self._closing = False

    @contextmanager
    def take(self, should_stop: ShouldStop | None = None) -> Iterator[Callable[[], None]]:
        """Waits for the turn; inside the block the model is this thread's alone.

        Yields a check to be called between steps: it raises CancelledError where should_stop() is true, and ClosedError
        where another thread closes the model. While native code runs it is asked about every 50 ms.
        """

        def check() -> None:
            self._check(should_stop)

        def check_all() -> None:
            before()
            check()

        self._wait(check)
        before, self._hook.poll = self._hook.poll, check_all
        try:
            self._hook.check()
            yield self._hook.check
        finally:
            late = self._hook.forget()
            self._hook.poll = before
            self._leave()
        if isinstance(late, KeyboardInterrupt):  # everything was done when it came
            raise late

    def _check(self, should_stop: ShouldStop | None) -> None:
        if self._closing:
            raise ClosedError(f"{self._name} was closed, by this thread before or by another meanwhile; load it again")
        if should_stop is not None and should_stop():
            raise CancelledError("cancelled before there was an answer; what was done so far is gone, ask again")

    def _wait(self, check: Callable[[], None]) -> None:
        me, ticket = threading.get_ident(), object()
        with self._changed:
            if self._owner == me:
                self._depth += 1
                return
            self._queue.append(ticket)
            try:
                while self._owner is not None or self._queue[0] is not ticket:
                    check()
                    self._changed.wait(_WAIT)
                self._owner, self._depth = me, 1
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._changed.notify_all()

    def close(self, free: Callable[[], None]) -> None:
        """Ends the call that runs in another thread, and those that wait, with ClosedError; then frees. Idempotent.

        Raises UsageError in a callback of a running call of this thread.
        """
        me = threading.get_ident()
        with self._changed:
            if self._owner == me:
                raise UsageError(
                    f"{self._name} cannot be closed in a callback of its own call; end the call first "
                    "(should_stop, or an exception), then close"
                )
            self._closing = True
            while self._owner is not None:
                self._changed.wait(_WAIT)
            self._owner = me
        try:
            free()
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()
