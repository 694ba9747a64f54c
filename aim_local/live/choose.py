"""Which frames are taken: one a tick, and fewer where the machine cannot keep up. Pure arithmetic on times.

Knows no frames and no clocks.
"""

from __future__ import annotations

import math
from collections import deque

_EPS = 1e-6
_SAMPLES = 16  # encoded frames whose times are averaged
_FEWEST = 3  # the first frame takes longer than others
_SLACK = 0.1  # how much faster than needed the machine must be before more frames are taken


class Chooser:
    """Takes the frame nearest to each tick of `rate` ticks a second, as far as the last gap between frames tells."""

    def __init__(self, rate: float, after: float | None = None) -> None:
        """after: when the last frame is shown that was taken already."""
        self.rate = rate
        self._before: float | None = None
        self._tick = -1.0 if after is None else math.floor(after * rate + _EPS) / rate  # the last one that has a frame

    def takes(self, seconds: float) -> bool:
        """Whether the frame is taken. seconds: not less than of the frame before."""
        rate = self.rate
        gap = 0.0 if self._before is None else seconds - self._before
        self._before = seconds
        # nearer to its tick than the next one will be, where that comes after as long a gap
        tick = math.floor((seconds + min(gap, 1 / rate) / 2) * rate + _EPS) / rate
        if tick <= self._tick + _EPS:
            return False
        self._tick = tick
        return True


class Pace:
    """Takes one of `one_of` ticks, as many as the machine encodes. fps: ticks a second that are wanted."""

    def __init__(self, fps: float) -> None:
        self.fps, self.one_of = fps, 1
        self._spent: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def rate(self) -> float:
        """Frames a second that are taken."""
        return self.fps / self.one_of

    @property
    def encodes(self) -> float:
        """Frames a second that this machine encodes, as far as was seen."""
        return len(self._spent) / max(sum(self._spent), 1e-9)

    def note(self, seconds: float) -> bool:
        """A frame took so long, from when the encoder was free until its rows were there. Whether the pace changed."""
        self._spent.append(seconds)
        if len(self._spent) < _FEWEST:
            return False
        load = self.fps * sum(self._spent) / len(self._spent)  # of one encoder
        least = max(1, math.ceil(load - _EPS))
        easy = max(1, math.ceil(load * (1 + _SLACK) - _EPS))
        before, self.one_of = self.one_of, max(least, min(self.one_of, easy))
        return self.one_of != before
