"""Threads that look for the media of requests: a few of them for each client, so that one cannot hold them all.

Knows the order of work. What the work is, the service knows.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from .threads import Threads

N_THREADS = 16
N_EACH = 4  # of one client: 16 slow addresses would hold up everybody


Work = Callable[[], None]


def _always() -> bool:
    return True


class Fetchers:
    """Any thread may call."""

    def __init__(self) -> None:
        self._pool = Threads(N_THREADS, "aim-local media")
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[tuple[Work, Callable[[], bool]]]] = {}
        self._lock = threading.Lock()

    def submit(self, account: str, work: Work, is_wanted: Callable[[], bool] = _always) -> None:
        """Does it as soon as there is a thread for that client. Raises RuntimeError after `close`.

        is_wanted: work that waits and is not wanted any more is forgotten; it may hold a large request.
        """
        with self._lock:
            if self._running[account] >= N_EACH:
                waiting = [one for one in self._waiting.get(account, ()) if one[1]()]
                self._waiting[account] = deque([*waiting, (work, is_wanted)])
                return
            self._running[account] += 1
        try:
            self._pool.submit(self._work, account, work)
        except RuntimeError:
            self._ended(account)
            raise

    def n_waiting(self, account: str) -> int:
        with self._lock:
            return len(self._waiting.get(account, ()))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at work."""
        return self._pool.is_idle

    def _work(self, account: str, work: Work) -> None:
        try:
            work()
        finally:
            if (following := self._ended(account)) is not None:
                try:
                    self._pool.submit(self._work, account, following)
                except RuntimeError:  # closed; who waits was told
                    self._ended(account)

    def _ended(self, account: str) -> Work | None:
        """The next work of the client, which has the thread's place then."""
        with self._lock:
            waiting = self._waiting.get(account)
            if waiting:
                following, _ = waiting.popleft()
                if not waiting:
                    del self._waiting[account]
                return following
            self._running[account] -= 1
            if not self._running[account]:
                del self._running[account]
            return None

    def close(self) -> None:
        """Begins nothing more; what is at work goes on to its end."""
        with self._lock:
            self._waiting.clear()
        self._pool.shutdown()
