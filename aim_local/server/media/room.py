"""Room on the disk that uploads and the files of running requests share.

Knows numbers only. Who takes room gives it back.
"""

from __future__ import annotations

import threading


class Room:
    """`n_bytes` in all. Many threads may take and give."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes, self._taken = n_bytes, 0
        self._lock = threading.Lock()

    def take(self, n_bytes: int) -> bool:
        """False, and nothing is taken, where there is not so much left."""
        with self._lock:
            if self._taken + n_bytes > self._n_bytes:
                return False
            self._taken += n_bytes
            return True

    def give(self, n_bytes: int) -> None:
        with self._lock:
            assert n_bytes <= self._taken, "given back once"
            self._taken -= n_bytes

    @property
    def free(self) -> int:
        with self._lock:
            return self._n_bytes - self._taken
