"""When a frame is shown, in seconds since the first one that came, whatever the source's own time stamps do.

Of a file, since its own beginning, also where only its end is decoded.

Stamps may be missing, jump, start again, or go on after a cut. Knows plain numbers only.
"""

from __future__ import annotations

JUMP = 10.0  # seconds by which a step of the stamps may exceed the time that passed: frames may come in bursts
JUMP_AFTER_CUT = 3.0  # after a cut nothing says that the stamps go on where they were
JUMP_OF_FILE = 600.0  # longest step of a file's stamps, which are read faster than they pass
_USUAL = 0.04  # seconds between two frames, where nothing is known


class Timeline:
    """is_paced: frames come when they are shown, so the time that passed can stand in for stamps."""

    def __init__(self, *, is_paced: bool) -> None:
        self._is_paced, self._cut = is_paced, False
        self._last: tuple[float | None, float, float] | None = None  # stamp, arrival, seconds
        self._offset = 0.0  # seconds - stamp, while stamps go on: adding steps would add up their rounding
        self._step = _USUAL

    def cut(self) -> None:
        """The source went away; the next frame is from a new beginning."""
        self._cut = True

    def seconds(self, stamp: float | None, arrival: float, begin: float | None = None) -> float:
        """Of a frame; never less than of the one before. stamp: its own, None without one; arrival: when it came.

        begin: the stamp with which its file begins.
        """
        if self._last is None:
            found = 0.0 if self._is_paced or stamp is None or begin is None else max(0.0, stamp - begin)
            self._offset = found - (stamp or 0.0)
        else:
            before, came, seconds = self._last
            stamped = None if stamp is None or before is None else stamp - before
            if stamp is not None and stamped is not None and self._goes_on(stamped, arrival - came):
                found, self._step = stamp + self._offset, stamped
            else:
                found = seconds + (max(0.0, arrival - came) if self._is_paced else self._step)
                self._offset = found - (stamp or 0.0)
        self._last, self._cut = (stamp, arrival, found), False
        return found

    def _goes_on(self, stamped: float, passed: float) -> bool:
        """Whether the stamps tell the time between two frames. stamped: between them; passed: between their coming."""
        if not self._is_paced:
            return 0 < stamped <= JUMP_OF_FILE
        if self._cut:
            return stamped > 0 and abs(stamped - passed) <= JUMP_AFTER_CUT
        # what comes late, after a network that stood still, was shown when its stamps say
        return 0 < stamped <= passed + JUMP
