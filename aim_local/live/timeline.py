"""When a frame is shown, in seconds since the first one that came, whatever the source's own time stamps do.

Of a file, since its own beginning, also where only its end is decoded.

Stamps may be missing, jump, start again, or go on after a cut. Knows plain numbers only.
"""

from __future__ import annotations

JUMP = 10.0  # seconds by which a step of the stamps may differ from the time that passed
JUMP_AFTER_CUT = 1.0  # after a cut nothing says that the stamps go on where they were
JUMP_OF_FILE = 600.0  # longest step of a file's stamps, which are read faster than they pass
_USUAL = 0.04  # seconds between two frames, where nothing is known


class Timeline:
    """is_paced: frames come when they are shown, so the time that passed can stand in for stamps."""

    def __init__(self, *, is_paced: bool) -> None:
        self._is_paced, self._cut = is_paced, False
        self._last: tuple[float | None, float, float] | None = None  # stamp, arrival, seconds
        self._step = _USUAL

    def cut(self) -> None:
        """The source went away; the next frame is from a new beginning."""
        self._cut = True

    def seconds(self, stamp: float | None, arrival: float, begin: float | None = None) -> float:
        """Of a frame; never less than of the one before. stamp: its own, None without one; arrival: when it came.

        begin: the stamp with which its file begins, or the stream with this opening.
        """
        if self._last is None:
            found = self._first(stamp, begin)
        else:
            before, came, seconds = self._last
            found = seconds + self._step_of(None if stamp is None or before is None else stamp - before, arrival - came)
        self._last, self._cut = (stamp, arrival, found), False
        return found

    def _first(self, stamp: float | None, begin: float | None) -> float:
        return 0.0 if self._is_paced or stamp is None or begin is None else max(0.0, stamp - begin)

    def _step_of(self, stamped: float | None, passed: float) -> float:
        passed = max(0.0, passed)
        if self._is_paced:
            allowed = JUMP_AFTER_CUT if self._cut else JUMP
            return stamped if stamped is not None and stamped > 0 and abs(stamped - passed) <= allowed else passed
        if stamped is not None and 0 < stamped <= JUMP_OF_FILE:
            self._step = stamped
        return self._step
