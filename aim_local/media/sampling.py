"""Which frames to use: pure functions from a clip's timestamps and a FrameSampling to indices.

Knows: the index rule of the video models' authors (linspace from first to last frame), fps with a cap, start and end.
Leaves to others: files and decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aim_local.errors import MediaError
from aim_local.media.types import FrameSampling, Indices, Seconds, VideoInfo

# times come from rationals such as 3003/90000: a frame written as "at 0.3 s" must count as at 0.3 s
TIME_EPS = 1e-6


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """indices: int64 [T], ascending and distinct; warnings: what was asked and could not be done in full."""

    indices: Indices
    warnings: tuple[str, ...]


def sample_times(info: VideoInfo, sampling: FrameSampling) -> list[tuple[int, float]]:
    """(frame index, seconds from the first frame) of every frame that `sampling` picks, ascending.

    Raises MediaError where no frame lies in the range.
    """
    return [(int(i), float(info.timestamps[i])) for i in plan_samples(info, sampling).indices]


def plan_samples(info: VideoInfo, sampling: FrameSampling) -> SamplePlan:
    """As `sample_times`, with the warnings. Raises MediaError where no frame lies in the range."""
    inside = _frames_in_range(info, sampling)
    warnings = list(_range_warnings(info, sampling))
    if sampling.fps is None:
        assert sampling.n_frames is not None, "checked by FrameSampling"
        picked, said = _uniform(inside, sampling.n_frames)
    else:
        picked, said = _at_rate(info.timestamps[inside], inside, sampling.fps, sampling.n_frames)
    return SamplePlan(picked, (*warnings, *said))


def _frames_in_range(info: VideoInfo, sampling: FrameSampling) -> Indices:
    times = info.timestamps
    start = 0.0 if sampling.start is None else sampling.start
    end = np.inf if sampling.end is None else sampling.end
    inside = np.flatnonzero((times >= start - TIME_EPS) & (times <= end + TIME_EPS))
    if len(inside) == 0:
        last = times[-1]
        upto = "the end" if sampling.end is None else f"{end:g} s"
        raise MediaError(
            f"{info.source}: no frame between {start:g} s and {upto}; the clip has {info.n_frames} frame"
            f"{'s' if info.n_frames != 1 else ''} from 0 s to {last:.3f} s: choose start and end within that"
        )
    return inside.astype(np.int64)


def _range_warnings(info: VideoInfo, sampling: FrameSampling) -> list[str]:
    if sampling.end is None or sampling.end <= info.duration + TIME_EPS:
        return []
    return [f"end {sampling.end:g} s is after the end of the clip ({info.duration:.3f} s): used up to the end"]


def _uniform(inside: Indices, n_frames: int) -> tuple[Indices, list[str]]:
    n_inside = len(inside)
    if n_frames > n_inside:
        have = "is only 1 frame" if n_inside == 1 else f"are only {n_inside} frames"
        return inside, [f"{n_frames} frames were asked for, but there {have} in the range: all used"]
    # the frames the authors' code takes: numpy.linspace(0, n-1, N, dtype=int)
    return inside[np.linspace(0, n_inside - 1, n_frames, dtype=int)], []


def _at_rate(times: Seconds, inside: Indices, fps: float, cap: int | None) -> tuple[Indices, list[str]]:
    # decided before the ticks exist: an fps of 1e12 must not become an array of that length
    span = float(times[-1] - times[0])
    n_ticks = np.floor(span * fps + TIME_EPS) + 1
    warnings = []
    if n_ticks > 2 * len(times):
        chosen = np.arange(len(times))
    else:
        chosen = np.unique(_nearest(times, times[0] + np.arange(int(n_ticks)) / fps))
    if len(chosen) < n_ticks:
        warnings.append(f"fps {fps:g} is more than the clip has: {len(chosen)} frames instead of {n_ticks:.0f}")
    if cap is not None and len(chosen) > cap:
        # over the cap the authors' code drops the rate and spreads the cap over the whole range
        warnings.append(f"fps {fps:g} gives {len(chosen)} frames, over the cap: {cap} evenly spread frames are used")
        return inside[np.linspace(0, len(inside) - 1, cap, dtype=int)], warnings
    return inside[chosen], warnings


def _nearest(times: Seconds, ticks: Seconds) -> Indices:
    right = np.clip(np.searchsorted(times, ticks), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    nearer_left = ticks - times[left] <= times[right] - ticks
    return np.where(nearer_left, left, right).astype(np.int64)
