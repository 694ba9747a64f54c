"""Which frames to use: pure functions from a clip's timestamps and a FrameSampling to indices.

Knows: the index rule of the video models' authors (linspace from first to last frame), what a clip is that needs
another (its rate varies much) and the rule for it, fps with a cap, start and end.
Leaves to others: files and decoding.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

import numpy as np

from aim_local.errors import MediaError
from aim_local.media.types import FrameSampling, Indices, Pick, Seconds, VideoInfo

# times come from rationals such as 3003/90000: a frame written as "at 0.3 s" must count as at 0.3 s
TIME_EPS = 1e-6
_FAR = 0.05  # of a clip's span: how far a frame may be from where a constant rate had it


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
    times, n = info.timestamps[inside], len(inside)
    if sampling.fps is not None:
        picked, said = _at_rate(times, sampling.fps, sampling.n_frames, sampling.pick)
    else:
        assert sampling.n_frames is not None, "checked by FrameSampling"
        if sampling.n_frames > n:
            have = "is only 1 frame" if n == 1 else f"are only {n} frames"
            said = [f"{sampling.n_frames} frames were asked for, but there {have} in the range: all used"]
            picked = np.arange(n)
        else:
            picked, said = _spread(times, sampling.n_frames, sampling.pick)
    return SamplePlan(inside[picked], (*warnings, *said))


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


def _spread(times: Seconds, n_frames: int, pick: Pick) -> tuple[Indices, list[str]]:
    """int64 [n_frames], which of `times` are taken, ascending and distinct, and what is to be said of it."""
    by_time = pick == "time" or (pick == "auto" and varies_much(times))
    if not by_time:
        # the frames the authors' code takes: numpy.linspace(0, n-1, N, dtype=int)
        return np.linspace(0, len(times) - 1, n_frames, dtype=int), []
    said = "the frame rate of the clip varies: frames are picked evenly in time, not by number"
    return _evenly_in_time(times, n_frames), [said] if pick == "auto" else []


def varies_much(times: Seconds) -> bool:
    """Whether frames that are evenly spread by number are far from evenly spread in time.

    A clip of a constant rate has its frame i of n at i / (n - 1) of its span. The rate varies much where a frame is
    away from there by more than a twentieth of the span, and by more than two gaps of the shorter kind (the lower
    quartile): a dropped frame is not that, nor a clock that trembles. times: float64 [n], ascending.
    """
    if len(times) < 3 or not (span := float(times[-1] - times[0])) > 0:
        return False
    away = float(np.abs(times - np.linspace(times[0], times[-1], len(times))).max())
    return away > _FAR * span and away > 2 * float(np.quantile(np.diff(times), 0.25)) + TIME_EPS


def _evenly_in_time(times: Seconds, n_frames: int) -> Indices:
    """int64 [n_frames]: frames nearest to even ticks; where several ticks share one, others fill the widest gaps."""
    picked = np.unique(_nearest(times, np.linspace(times[0], times[-1], n_frames)))
    gaps = [_gap(times, int(a), int(b)) for a, b in itertools.pairwise(picked)]
    heapq.heapify(gaps)
    found = picked.tolist()
    while len(found) < n_frames:
        _, left, middle, right = heapq.heappop(gaps)
        if middle in (left, right):
            continue
        found.append(middle)
        heapq.heappush(gaps, _gap(times, left, middle))
        heapq.heappush(gaps, _gap(times, middle, right))
    return np.array(sorted(found), dtype=np.int64)


def _gap(times: Seconds, left: int, right: int) -> tuple[float, int, int, int]:
    """(minus how far its middle frame is from both ends, left, middle, right); middle is an end where none is between.

    Frames without a neighbour come last in a heap of these.
    """
    if right - left < 2:
        return math.inf, left, left, right
    between = times[left + 1 : right]
    middle = int(np.searchsorted(between, (times[left] + times[right]) / 2))
    near = [m for m in (middle - 1, middle) if 0 <= m < len(between)]
    best = min(near, key=lambda m: -min(between[m] - times[left], times[right] - between[m]))
    away = float(min(between[best] - times[left], times[right] - between[best]))
    return -away, left, left + 1 + best, right


def _at_rate(times: Seconds, fps: float, cap: int | None, pick: Pick) -> tuple[Indices, list[str]]:
    # decided before the ticks exist: an fps of 1e12 must not become an array of that length
    span = float(times[-1] - times[0])
    n_ticks = np.floor(span * fps + TIME_EPS) + 1
    warnings = []
    if n_ticks > 2 * len(times):
        chosen = np.arange(len(times))
    else:
        chosen = np.unique(_nearest(times, times[0] + np.arange(int(n_ticks)) / fps))
    if len(chosen) < n_ticks:
        warnings.append(_fewer(times, fps, len(chosen), n_ticks))
    if cap is not None and len(chosen) > cap:
        # over the cap the authors' code drops the rate and spreads the cap over the whole range
        warnings.append(f"fps {fps:g} gives {len(chosen)} frames, over the cap: {cap} evenly spread frames are used")
        spread, said = _spread(times, cap, pick)
        return spread, [*warnings, *said]
    return chosen, warnings


def _fewer(times: Seconds, fps: float, n: int, n_ticks: float) -> str:
    """Why fps gives fewer frames than it has ticks: too fast for the clip, or a clip that stands still in places."""
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    if fps * usual > 1 + TIME_EPS or n_ticks > len(times):
        return f"fps {fps:g} is more than the clip has: {n} frames instead of {n_ticks:.0f}"
    longest = float(np.diff(times).max())
    return f"the clip shows one frame for up to {longest:.3g} s: fps {fps:g} finds {n} frames instead of {n_ticks:.0f}"


def _nearest(times: Seconds, ticks: Seconds) -> Indices:
    right = np.clip(np.searchsorted(times, ticks), 1, max(len(times) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times) - 1)
    nearer_left = ticks - times[left] <= times[right] - ticks
    return np.where(nearer_left, left, right).astype(np.int64)
