"""How long the window is, and which frames have left it. Pure arithmetic on times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aim_local.errors import UsageError

_EPS = 1e-6
MOST_FRAMES = 4096


@dataclass(frozen=True)
class WindowSize:
    """fps: frames a second that are taken. seconds: of the stream that the window shows. most: frames in it."""

    fps: float = 1.0
    seconds: float = 30.0
    most: int = 30

    @classmethod
    def of(
        cls, fps: float | None = None, seconds: float | None = None, frames: int | None = None, default: int = 30
    ) -> WindowSize:
        """From any two of the three; one alone goes with fps 1, none with `default` frames of a second each.

        Raises UsageError.
        """
        if fps is not None and seconds is not None and frames is not None:
            raise UsageError(
                "frames a second, the length and the frames of the window were all given; any two say the third: "
                "drop one"
            )
        for what, value in (("fps", fps), ("the window's length in seconds", seconds)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(f"{what} is {value:g}; it must be above 0")
        if frames is not None and frames < 1:
            raise UsageError(f"the window's number of frames is {frames}; it must be 1 or more")
        rate = 1.0 if fps is None else fps
        if seconds is not None and frames is not None:
            rate = frames / seconds
        if frames is None:
            frames = default if seconds is None else max(1, round(seconds * rate))
        if frames > MOST_FRAMES:
            raise UsageError(
                f"the window would hold {frames} frames, at most {MOST_FRAMES} are allowed; take fewer a "
                "second, or a shorter window"
            )
        return cls(rate, frames / rate if seconds is None else seconds, frames)


def n_leaving(times: Sequence[float], size: WindowSize) -> int:
    """How many of the first frames have left the window that ends with the last one. times: ascending, in seconds.

    A window of 30 s at 1 frame a second shows 30 frames: a frame of 30 s before the last one has left.
    """
    if not times:
        return 0
    begin = times[-1] - size.seconds
    n_old = sum(seconds <= begin + _EPS for seconds in times)
    return max(n_old, len(times) - size.most)
