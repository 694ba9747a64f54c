"""How far a conversion is: bytes done of all bytes, told to whoever asked. Knows no files."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what is being written


class Meter:
    """Adds up what the steps of a conversion report. `begin` once, when the sum is known; what comes early is kept."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done, self._total = progress, 0, 0

    def begin(self, total: int) -> None:
        self._total = total

    def add(self, name: str, n_bytes: int) -> None:
        """`n_bytes` more are written; padding may take the sum past the total, and is not told."""
        self._done = min(self._done + n_bytes, self._total)
        if self._progress is not None:
            self._progress(self._done, self._total, name)
