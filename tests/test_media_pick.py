"""Frames spread by number or by time: a constant rate keeps the authors' rule, a rate that varies much has another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_fixtures import codes_of, write_clip
from thorough import examples

from aim_local.errors import UsageError
from aim_local.media import FrameSampling, VideoInfo, outline_media, read_video, sample_times
from aim_local.media.sampling import plan_samples, varies_much

NOTE = "the frame rate of the clip varies: frames are picked evenly in time, not by number"


def info_of(times: Any) -> VideoInfo:
    times = np.asarray(times, dtype=np.float64)
    n, duration = len(times), float(times[-1]) + 0.04
    return VideoInfo("x", "mov", "h264", "yuv420p", 96, 64, 0, n, duration, n / duration, times, False)


def picked(times: Any, **options: Any) -> list[int]:
    return [i for i, _ in sample_times(info_of(times), FrameSampling(**options))]


RECORDING = np.concatenate([np.arange(60) / 30, [10, 10.03, 10.07, 38]])  # of a screen: still but for a few moments
TWO_RATES = np.concatenate([np.arange(240) / 24, 10 + np.arange(600) / 60])
PAUSE = np.concatenate([np.arange(100) / 25, 9 + np.arange(100) / 25])
SHORT = [0, 1, 2, 3, 13, 23, 33, 43, 53]


@pytest.mark.parametrize("times", [RECORDING, TWO_RATES, PAUSE, SHORT])
def test_a_rate_that_varies_much(times: Any) -> None:
    times = np.asarray(times, dtype=float)
    assert varies_much(times)
    plan = plan_samples(info_of(times), FrameSampling(8))
    assert plan.warnings == (NOTE,)
    assert len(plan.indices) == len(set(plan.indices.tolist())) == 8
    assert (plan.indices[0], plan.indices[-1]) == (0, len(times) - 1)
    ticks = np.linspace(times[0], times[-1], 8)
    nearest = np.abs(times[:, None] - ticks).argmin(axis=0)
    assert set(nearest.tolist()) <= set(plan.indices.tolist()), "every tick has the frame that is nearest to it"
    assert plan_samples(info_of(times), FrameSampling(8, pick="time")).indices.tolist() == plan.indices.tolist()
    by_index = plan_samples(info_of(times), FrameSampling(8, pick="index"))
    assert by_index.indices.tolist() == np.linspace(0, len(times) - 1, 8, dtype=int).tolist()
    assert by_index.warnings == ()


def constant(n: int, rate: float, tick: float = 1e-6) -> np.ndarray[Any, Any]:
    return np.round(np.arange(n) / rate / tick) * tick


DROPPED = np.delete(constant(10, 25), 4)
STEADY = [
    constant(240, 25),
    constant(100, 30000 / 1001, 1e-3),  # matroska's clock
    DROPPED,
    np.delete(constant(300, 30), [7, 8, 151, 290]),  # a few frames dropped
    np.cumsum(np.tile([2, 3], 60)) / 60,  # film in television's rate
    np.arange(200) / 30 + np.random.default_rng(0).uniform(-0.01, 0.01, 200),  # a phone
    constant(2, 25),
    constant(1, 25),
]


@pytest.mark.parametrize("times", STEADY)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_constant_rate_keeps_the_authors_rule(times: Any, n: int) -> None:
    times = np.sort(times - times.min())
    plan = plan_samples(info_of(times), FrameSampling(min(n, len(times))))
    assert plan.indices.tolist() == np.linspace(0, len(times) - 1, min(n, len(times)), dtype=int).tolist()
    assert plan.warnings == ()


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=50), st.integers(1, 51))
def test_any_gaps_give_as_many_frames_as_asked_for(gaps: list[float], n: int) -> None:
    times = np.cumsum([0.0, *gaps])
    found = picked(times, n_frames=n, pick="time")
    assert len(found) == min(n, len(times))
    assert found == sorted(set(found))


def test_a_rate_below_the_clips_is_not_called_too_much() -> None:
    times = np.concatenate([np.arange(60) / 30, [38]])
    plan = plan_samples(info_of(times), FrameSampling(None, fps=0.25))
    assert plan.indices.tolist() == [0, 59, 60]
    assert plan.warnings == ("the clip shows one frame for up to 36 s: fps 0.25 finds 3 frames instead of 10",)
    fast = plan_samples(info_of(constant(10, 25)), FrameSampling(None, fps=50))
    assert fast.warnings == ("fps 50 is more than the clip has: 10 frames instead of 19",)
    for fps in (1, 3, 24.9, 25):
        assert plan_samples(info_of(constant(250, 25)), FrameSampling(None, fps=fps)).warnings == ()


def test_over_the_cap_the_same_rule_spreads() -> None:
    plan = plan_samples(info_of(TWO_RATES), FrameSampling(8, fps=5))
    assert plan.indices.tolist() == picked(TWO_RATES, n_frames=8, pick="time")
    assert plan.warnings[-1] == NOTE


def test_a_range_is_looked_at_alone() -> None:
    plan = plan_samples(info_of(RECORDING), FrameSampling(8, end=1.5))
    assert plan.indices.tolist() == np.linspace(0, 45, 8, dtype=int).tolist()
    assert plan.warnings == ()


def test_a_bad_pick_is_refused() -> None:
    for pick in ("fast", None, 3):
        with pytest.raises(UsageError, match=r"pick is .*; it must be auto, time or index"):
            FrameSampling(pick=pick)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_a_screen_recording(tmp_path: Path, name: str) -> None:
    """Two seconds of moves in 38: they are not all that is seen, and the times are the true ones."""
    ticks = [i * 40 for i in range(50)] + [9000, 20000, 20040, 38000]
    extra: dict[str, Any] = {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}
    path = write_clip(
        tmp_path / name, 54, ticks=ticks, ticks_per_second=1000, **(extra if name.endswith("webm") else {})
    )
    video = read_video(path, FrameSampling(6))
    assert codes_of(video.frames) == video.indices.tolist()
    assert video.timestamps == pytest.approx(np.array(ticks)[video.indices] / 1000)
    assert {9, 20, 38} <= {round(t) for t in video.timestamps}
    assert NOTE in video.warnings
    assert outline_media(path, FrameSampling(6)).shape.indices == tuple(video.indices)
    assert codes_of(read_video(path, FrameSampling(6, pick="index")).frames) == [0, 10, 21, 31, 42, 53]
