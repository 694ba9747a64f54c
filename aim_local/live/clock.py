"""What the time is. Everything here asks a clock that it is given, so that hours can pass in seconds in a trial."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since any moment; it never goes back."""

    def wall(self) -> float:
        """Seconds since 1970."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Until the event is set, at most so long; whether it is."""


class SystemClock:
    """The time as it is."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class FastClock:
    """Goes `speed` times as fast as the time, for trials."""

    def __init__(self, speed: float) -> None:
        self._speed, self._start, self._wall = speed, time.monotonic(), time.time()

    def now(self) -> float:
        return (time.monotonic() - self._start) * self._speed

    def wall(self) -> float:
        return self._wall + self.now()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds / self._speed)
