"""Threads whose work nothing can stop in its middle, such as reading a hostile file's head: no end waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Threads(ThreadPoolExecutor):
    """Who ends the process with work left here has to end it at once: Python itself waits for every thread."""

    def __init__(self, n: int, name: str) -> None:
        super().__init__(n, name)
        self._n_left, self._counting = 0, threading.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at work or waits for a thread."""
        return not self._n_left

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        found = super().submit(fn, *args, **kwargs)
        self._count(1)
        found.add_done_callback(lambda _: self._count(-1))
        return found

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Begins nothing more, and waits for nothing."""
        super().shutdown(wait=False, cancel_futures=True)

    def _count(self, n: int) -> None:
        with self._counting:
            self._n_left += n
