"""One call at a time: callers from many threads wait for their turn, in order; a call can be stopped from outside.

Native contexts and the vision tower must not be used by two threads at once.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from ..errors import CancelledError, ClosedError, UsageError
from ..native.stop import StopHook

ShouldStop = Callable[[], bool]

_WAIT = 0.05  # seconds between two looks at should_stop while waiting


class _Call:
    """A call in the queue. turn: locked until the turn may be here."""

    def __init__(self) -> None:
        self.thread, self.turn = threading.get_ident(), threading.Lock()
        self.turn.acquire()


class Turns:
    """Guards one model. A callback of a call may call the model again, in the same thread; should_stop may not.

    between: what nobody's turn is for, and that needs it; called at the end of each.
    """

    def __init__(self, name: str, hook: StopHook, between: Callable[[], None] = lambda: None) -> None:
        self._name, self._hook, self._between, self._process = name, hook, between, os.getpid()
        self._queue: deque[_Call] = deque()  # the first has the turn; without a lock, which a Ctrl-C could leave held
        self._asking = threading.local()  # .now: this thread asks should_stop
        self._closing = False

    @contextmanager
    def take(self, should_stop: ShouldStop | None = None) -> Iterator[Callable[[], None]]:
        """Waits for the turn; inside the block the model is this thread's alone.

        Yields a check to be called between steps: it raises CancelledError where should_stop() is true, and ClosedError
        where another thread closes the model. While native code runs it is asked about every 50 ms. Raises UsageError
        in a should_stop of the model, and in a process forked from the one that loaded it.
        """
        self._check_caller()
        call, hook = _Call(), self._hook
        before: list[Callable[[], None]] = []
        late: list[BaseException | None] = []

        def check() -> None:
            self._check(should_stop)

        def check_all() -> None:
            before[0]()
            check()

        def leave() -> None:
            if before:
                late.append(hook.forget())
                hook.poll = before[0]
            self._leave(call)

        try:  # from here on, whatever comes, also a Ctrl-C between two lines, the turn is given back
            self._wait(call, check)
            before.append(hook.poll)
            hook.poll = check_all
            hook.check()
            yield hook.check
        finally:
            try:
                leave()
            except KeyboardInterrupt as e:
                late.append(e)
                leave()
            self.tidy()
            for ended in late:
                if isinstance(ended, KeyboardInterrupt):  # too late to stop anything, but not to be told
                    raise ended

    def tidy(self) -> None:
        """Does what is to be done between turns, where nobody has the turn; who has it does so at its end."""
        if self.is_forked:
            return
        call = _Call()
        try:
            self._queue.append(call)
            if self._queue[0] is call:
                self._between()
        finally:
            try:
                self._leave(call)
            except KeyboardInterrupt:
                self._leave(call)
                raise

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that loaded the model: what it sees here is its parent's."""
        return os.getpid() != self._process

    def _check_caller(self) -> None:
        if self.is_forked:
            raise UsageError(
                f"{self._name} was loaded before this process was forked, and cannot compute here; load it in this "
                'process, or start it with multiprocessing\'s "spawn"'
            )
        if getattr(self._asking, "now", False):
            raise UsageError(f"should_stop called {self._name}; it may only say whether to stop")

    def _check(self, should_stop: ShouldStop | None) -> None:
        if self._closing:
            raise ClosedError(f"{self._name} was closed, by this thread before or by another meanwhile; load it again")
        if should_stop is not None and self._ask(should_stop):
            raise CancelledError("cancelled before there was an answer; what was done so far is gone, ask again")

    def _ask(self, should_stop: ShouldStop) -> bool:
        try:
            self._asking.now = True
            found: object = should_stop()
            if not isinstance(found, bool | np.bool_) and found is not None:
                raise UsageError(f"should_stop returned {found!r:.80}; it must return True or False")
            return bool(found)
        finally:
            self._asking.now = False

    def _is_inside(self) -> bool:
        """Whether this thread has the turn."""
        try:
            return self._queue[0].thread == threading.get_ident()
        except IndexError:
            return False

    def _wait(self, call: _Call, check: Callable[[], None]) -> None:
        """Until `call` is the first in the queue; not at all where this thread has the turn already."""
        if self._is_inside():
            return
        self._queue.append(call)
        while self._queue[0] is not call:
            check()
            call.turn.acquire(timeout=_WAIT)

    def _leave(self, call: _Call) -> None:
        """Takes `call` out of the queue, if it is there, and wakes who comes next."""
        try:
            self._queue.remove(call)
        except ValueError:  # a call within a call has no place of its own
            return
        with suppress(IndexError, RuntimeError):  # nobody waits, or was woken already
            self._queue[0].turn.release()

    def close(self, free: Callable[[], None]) -> None:
        """Ends the call that runs in another thread, and those that wait, with ClosedError; then frees. Idempotent.

        Raises UsageError in a callback of a running call of this thread. Frees nothing in a forked process: what it
        sees there is its parent's.
        """
        if self.is_forked:
            return
        if self._is_inside():
            raise UsageError(
                f"{self._name} cannot be closed in a callback of its own call; end the call first "
                "(should_stop, or an exception), then close"
            )
        call, self._closing = _Call(), True
        try:
            self._wait(call, lambda: None)
            try:
                free()
            except KeyboardInterrupt:
                free()  # what is left of it
                raise
        finally:
            try:
                self._leave(call)
            except KeyboardInterrupt:
                self._leave(call)
                raise
