"""Clocks of files that start again, jump, go round or say nothing: the file's order, and times that rise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_fixtures import codes_of, join, picture, restamp_ts, write_clip
from thorough import examples

from aim_local.media import FrameSampling, Video, open_media, outline_media, read_video
from aim_local.media.clock import clock_of_frames, clock_of_packets

HOUR = 3600 * 90000
WRAP = 2**33
AGAIN = "the file's clock starts again or jumps once (clips joined end to end?): frames are kept in the file's order, "


def whole(path: Path, n: int) -> Video:
    """All frames of a clip of `n` frames that tell their number; their times rise."""
    video = read_video(path, FrameSampling(n))
    assert codes_of(video.frames) == list(range(n))
    assert (np.diff(video.timestamps) > 0).all()
    return video


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Transport streams of 45 frames: frames in the order they are shown in, and not."""
    folder = tmp_path_factory.mktemp("streams")
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"b_frames": 0},
        "b-frames": {"b_frames": 2},
        "mpeg2": {"codec": "mpeg2video", "b_frames": 2},
    }
    return {name: write_clip(folder / f"{name}.ts", n_frames=45, gop=15, **how) for name, how in kinds.items()}


KINDS = ["plain", "b-frames", "mpeg2"]


# --- clips joined end to end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        ("ts", {"b_frames": 2}),
        ("mkv", {"b_frames": 2}),
        ("webm", {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}),
        ("mpg", {"codec": "mpeg2video", "b_frames": 2}),
        ("flv", {"b_frames": 2}),
    ],
)
def test_joined_captures_are_one_clip_in_their_order(tmp_path: Path, suffix: str, how: dict[str, Any]) -> None:
    parts = [
        write_clip(tmp_path / f"{n}.{suffix}", 20, gop=10, pictures=[picture(n + i) for i in range(20)], **how)
        for n in (0, 20, 40)
    ]
    path = join(tmp_path / f"joined.{suffix}", *parts)
    video = whole(path, 60)
    assert np.diff(video.timestamps) == pytest.approx(0.04, abs=2e-3)
    assert [w for w in video.warnings if "clock" in w] == [AGAIN.replace("once", "2 times") + GOES_ON]
    late = read_video(path, FrameSampling(4, start=0.6, end=2.0))
    assert codes_of(late.frames) == late.indices.tolist() == np.linspace(15, 50, 4, dtype=int).tolist()
    assert outline_media(path, FrameSampling(4, start=0.6, end=2.0)).shape.timestamps == tuple(late.timestamps)


GOES_ON = "and times go on from part to part"


def test_joined_mp4_files_are_told(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "a.mp4", 10)
    video = whole(join(tmp_path / "joined.mp4", one, one), 10)
    assert video.warnings == (
        "the file is 2 films joined end to end, of which players see the first: give the others as files",
    )
    assert whole(one, 10).warnings == ()


@pytest.mark.parametrize(
    ("suffix", "codec"), [("asf", "wmv2"), ("ivf", "libvpx"), ("nut", "mpeg4"), ("wtv", "mpeg2video")]
)
def test_joined_files_of_which_the_first_is_read_are_told(tmp_path: Path, suffix: str, codec: str) -> None:
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {}
    one = write_clip(tmp_path / f"a.{suffix}", 20, codec=codec, b_frames=0, options=options)
    video = read_video(join(tmp_path / f"joined.{suffix}", one, one, one), FrameSampling(4))
    assert "the file is 3 films joined end to end" in str(video.warnings)
    assert "joined" not in str(read_video(one, FrameSampling(4)).warnings)


def test_a_stream_of_jpegs_is_told(tmp_path: Path) -> None:
    pictures = [write_picture(tmp_path / f"{i}.jpg", i) for i in range(3)]
    path = join(tmp_path / "camera.mjpeg", *pictures)
    for look in (outline_media, open_media):
        assert "other JPEGs follow in the file" in str(look(path).warnings)
        assert look(pictures[0]).warnings == ()


def write_picture(path: Path, index: int) -> Path:
    PIL.Image.fromarray(picture(index)).save(path)
    return path


def test_a_cut_that_kept_its_clock_announces_no_more_than_it_has(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mkv", 30, ticks=[40 * i + 100_000 for i in range(30)], ticks_per_second=1000)
    assert whole(path, 30).warnings == ()


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"options": {"x264-params": "cabac=1"}}, {"options": {"x264-params": "cabac=0"}}),
        ({"options": {"qp": "20"}}, {"options": {"qp": "30"}}),
        ({"codec": "mpeg4"}, {"codec": "libx264"}),
        ({"codec": "mpeg4"}, {"codec": "mpeg4", "size": (160, 96)}),
    ],
)
def test_a_matroska_that_needs_another_decoder_is_left_out(
    tmp_path: Path, first: dict[str, Any], other: dict[str, Any]
) -> None:
    """Guards pictures of a later clip that the first one's decoder makes noise of, and says nothing."""
    parts = [
        write_clip(tmp_path / f"{n}.mkv", 20, pictures=[picture(n + i) for i in range(20)], **how)
        for n, how in ((0, first), (60, other), (20, first), (80, other))
    ]
    video = whole(join(tmp_path / "joined.mkv", *parts), 40)
    told = "2 clips joined to the file are coded in another way than the first, and left out: give such clips as files"
    assert [w for w in video.warnings if "left out" in w] == [f"{told} of their own"]


def test_a_matroska_of_pictures_that_set_up_the_decoder(tmp_path: Path) -> None:
    parts = [
        write_clip(tmp_path / f"{n}.mkv", 10, codec=codec, pictures=[picture(n + i) for i in range(10)], gop=gop)
        for n, codec, gop in ((0, "mpeg2video", 5), (10, "mpeg2video", 10))
    ]
    whole(join(tmp_path / "joined.mkv", *parts), 20)


# --- one clip, another clock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda i: -45000 if i >= 30 else 0,  # half a second back, at a key frame
        lambda i: -9000 if i >= 22 else 0,  # a tenth of a second, anywhere
        lambda i: HOUR if i < 17 else 0,  # from a clock that runs to one that starts
        lambda i: 9 * HOUR if i >= 15 else 0,  # hours ahead
    ],
)
def test_a_clock_that_jumps(
    streams: dict[str, Path], tmp_path: Path, kind: str, change: Callable[[int], int | None]
) -> None:
    video = whole(restamp_ts(streams[kind], tmp_path / "jumps.ts", change), 45)
    assert video.timestamps[-1] < 3
    assert any("clock" in w or "display time" in w for w in video.warnings)


def test_jumps_are_counted(streams: dict[str, Path], tmp_path: Path) -> None:
    video = whole(restamp_ts(streams["plain"], tmp_path / "jumps.ts", lambda i: HOUR - 45000 * (i // 10)), 45)
    assert video.warnings == (AGAIN.replace("once", "4 times") + GOES_ON,)
    assert video.timestamps == pytest.approx(np.arange(45) / 25)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [45000, 90000, 3600 * 40])
def test_a_clock_that_goes_round_is_no_other_clock(
    streams: dict[str, Path], tmp_path: Path, kind: str, before: int
) -> None:
    video = whole(restamp_ts(streams[kind], tmp_path / "round.ts", lambda i: WRAP - before), 45)
    assert video.timestamps == pytest.approx(np.arange(45) / 25)
    assert video.warnings == ()


# --- stamps that are missing, equal, or wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("equal", lambda i: -3600 if i == 20 else 0),
        ("far ahead", lambda i: 90000 * 50 if i == 22 else 0),
        ("far back", lambda i: -90000 if i == 32 else 0),
    ],
)
def test_one_bad_stamp_costs_one_time(
    streams: dict[str, Path], tmp_path: Path, kind: str, name: str, change: Callable[[int], int | None]
) -> None:
    video = whole(restamp_ts(streams[kind], tmp_path / "bad.ts", change), 45)
    assert video.timestamps == pytest.approx(np.arange(45) / 25, abs=0.041)
    assert video.warnings == ("1 of 45 frames has no display time of its own: set between the frames beside",), name


@pytest.mark.parametrize("lost", [{20}, {20, 21, 33}, set(range(45)) - {0, 15, 30}])
def test_missing_stamps_are_set_between_their_neighbours(
    streams: dict[str, Path], tmp_path: Path, lost: set[int]
) -> None:
    path = restamp_ts(streams["plain"], tmp_path / "lost.ts", lambda i: None if i in lost else 0)
    video = whole(path, 45)
    assert video.timestamps == pytest.approx(np.arange(45) / 25, abs=1e-6)
    assert any(w.startswith(f"{len(lost)} of 45 frame") for w in video.warnings)
    assert whole(restamp_ts(streams["b-frames"], tmp_path / "b.ts", lambda i: None if i in lost else 0), 45)


def test_no_stamps_at_all_are_counted(streams: dict[str, Path], tmp_path: Path) -> None:
    for kind in KINDS:
        video = whole(restamp_ts(streams[kind], tmp_path / "none.ts", lambda i: None), 45)
        assert video.timestamps == pytest.approx(np.arange(45) / 25)
        assert video.warnings == ("the file has no display times; they are counted at 25 frames per second",)


def test_equal_stamps_keep_true_times_of_the_others(tmp_path: Path) -> None:
    """Pictures that came in pairs, each pair with the time of its first."""
    path = write_clip(
        tmp_path / "pairs.ts", 20, b_frames=0, ticks=[3600 * i for i in range(20)], ticks_per_second=90000
    )
    video = whole(restamp_ts(path, tmp_path / "equal.ts", lambda i: -3600 * (i % 2)), 20)
    assert video.timestamps == pytest.approx(np.arange(20) / 25)
    assert video.warnings[-1].startswith("10 of 20 frames have no display time of their own")


@pytest.mark.parametrize("step", [1, 300, 700])
def test_equal_stamps_say_nothing_of_reordered_frames(tmp_path: Path, step: int) -> None:
    """Matroska's clock of milliseconds, and frames that follow each other faster: the decoder knows their order."""
    ticks = [step * i for i in range(20)]
    whole(write_clip(tmp_path / "fast.mkv", 20, b_frames=2, ticks=ticks, ticks_per_second=1_000_000), 20)


# --- the rule itself -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(st.none() | st.integers(0, 2**34), min_size=1, max_size=60), st.sampled_from([0.001, 40.0]), st.booleans()
)
def test_whatever_the_stamps_times_rise_and_frames_stay(stamps: list[int | None], usual: float, wraps: bool) -> None:
    found = clock_of_packets(
        stamps, stamps, [True] * len(stamps), 90000, usual, wraps=wraps, reorders=False, fresh=range(len(stamps))
    )
    for clock in (found, clock_of_frames(stamps, 90000, usual)):
        if clock is not None:
            assert sorted(clock.rows.tolist()) == list(range(len(stamps)))
            assert clock.ticks[0] == 0
            assert (np.diff(clock.ticks) > 0).all()
            assert np.isfinite(clock.ticks).all()
