"""Which frames of a clip are chosen: pure choices from times and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local.errors import MediaError, UsageError
from aim_local.media import (
    FrameSampling,
    VideoInfo,
    sample_times,
)
from aim_local.media.sampling import plan_samples


def info_of(timestamps: list[float] | np.ndarray[Any, Any], frame_seconds: float = 0.04) -> VideoInfo:
    times = np.asarray(timestamps, dtype=np.float64)
    duration = float(times[-1]) + frame_seconds
    return VideoInfo(
        "x", "mov", "h264", "yuv420p", 96, 64, 0, len(times), duration, len(times) / duration, times, False
    )


def chosen(info: VideoInfo, **options: Any) -> list[int]:
    return [index for index, _ in sample_times(info, FrameSampling(**options))]


@pytest.mark.parametrize(("n", "wanted"), [(240, 32), (33, 32), (32, 32), (1000, 1), (7, 2), (10, 3)])
def test_uniform_is_the_rule_of_llava_next(n: int, wanted: int) -> None:
    assert chosen(info_of(np.arange(n) / 25), n_frames=wanted) == np.linspace(0, n - 1, wanted, dtype=int).tolist()


def test_start_and_end_are_included() -> None:
    info = info_of(np.arange(100) * 3003 / 90000)
    assert chosen(info, n_frames=100, start=0.3003, end=0.5005) == [9, 10, 11, 12, 13, 14, 15]
    assert chosen(info, n_frames=3, start=1.001) == [30, 64, 99]


@pytest.mark.parametrize("rate", [25.0, 30000 / 1001, 24.0])
def test_fps_takes_evenly_spaced_frames(rate: float) -> None:
    # container clocks are coarse (matroska: milliseconds)
    info = info_of(np.round(np.arange(300) / rate, 3), 1 / rate)
    picked = sample_times(info, FrameSampling(n_frames=None, fps=2))
    assert np.allclose([t for _, t in picked], np.arange(len(picked)) / 2, atol=0.5 / rate + 1e-3)
    assert len(picked) == int(info.timestamps[-1] * 2) + 1


def test_fps_over_the_cap_spreads_the_cap_and_says_so() -> None:
    info = info_of(np.arange(250) / 25)
    plan = plan_samples(info, FrameSampling(n_frames=8, fps=5))
    assert plan.indices.tolist() == np.linspace(0, 249, 8, dtype=int).tolist()
    assert "50 frames" in plan.warnings[0]
    assert "8 evenly spread" in plan.warnings[0]
    assert plan_samples(info, FrameSampling(n_frames=50, fps=5)).warnings == ()


def test_asking_for_more_than_there_is_uses_what_there_is_and_says_so() -> None:
    info = info_of(np.arange(10) / 25)
    plan = plan_samples(info, FrameSampling(n_frames=32))
    assert plan.indices.tolist() == list(range(10))
    assert plan.warnings == ("32 frames were asked for, but there are only 10 frames in the range: all used",)
    plan = plan_samples(info, FrameSampling(n_frames=None, fps=50))
    assert plan.indices.tolist() == list(range(10))
    assert "fps 50 is more than the clip has: 10 frames instead of 19" in plan.warnings[0]
    assert "after the end of the clip (0.400 s)" in plan_samples(info, FrameSampling(2, end=9)).warnings[0]


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (0.05, 0.07)])
def test_no_frame_in_range(start: float, end: float | None) -> None:
    with pytest.raises(MediaError, match=r"x: no frame between .* the clip has 10 frames from 0 s to 0.360 s: choose"):
        sample_times(info_of(np.arange(10) / 25), FrameSampling(start=start, end=end))


@settings(deadline=None, max_examples=examples(200))
@given(
    gaps=st.lists(st.floats(0.001, 5.0), min_size=1, max_size=60),
    n_frames=st.none() | st.integers(1, 80),
    fps=st.none() | st.floats(0.01, 1e9),
    start=st.none() | st.floats(0, 100),
)
def test_any_choice_is_ascending_distinct_and_inside(
    gaps: list[float], n_frames: int | None, fps: float | None, start: float | None
) -> None:
    if n_frames is None and fps is None:
        n_frames = 1
    info = info_of(np.cumsum([0.0, *gaps]))
    try:
        picked = sample_times(info, FrameSampling(n_frames, fps, start))
    except MediaError:
        assert start is not None
        assert start > info.timestamps[-1]
        return
    indices = [index for index, _ in picked]
    assert indices == sorted(set(indices))
    assert 1 <= len(indices) <= min(n_frames or 10**9, info.n_frames)
    assert all(time == info.timestamps[index] >= (start or 0) - 1e-6 for index, time in picked)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_frames": 0}, "number of frames is 0; it must be a whole number, 1 or more"),
        ({"n_frames": -3}, "number of frames is -3"),
        ({"n_frames": 2.5}, "whole number"),
        ({"n_frames": True}, "whole number"),
        ({"n_frames": None}, "neither"),
        ({"fps": 0}, "fps is 0; it must be frames per second above 0"),
        ({"fps": -1.0}, "fps is -1"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"start": -1}, "start is -1"),
        ({"end": float("inf")}, "end is inf"),
        ({"start": 3, "end": 2}, "start 3 s is after end 2 s"),
    ],
)
def test_bad_sampling_is_refused_at_construction(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        FrameSampling(**options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
