"""Media layer: frames really are the ones asked for, in every container, and every bad input gets one clear line."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_fixtures import (
    Pixels,
    code_of,
    codes_of,
    cut,
    damage_packets,
    decode_all,
    hide_vp8_packet,
    picture,
    write_animation,
    write_clip,
    write_sound,
)

from aim_local.errors import AimError, MediaError, UsageError
from aim_local.media import (
    FrameSampling,
    Image,
    Video,
    VideoInfo,
    canvas,
    container,
    decode,
    open_media,
    probe_video,
    read_image,
    read_video,
    sample_times,
)
from aim_local.media.index import Clip, index_video
from aim_local.media.sampling import plan_samples
from aim_local.media.seek import PacketTable, key_row, plan_segments

KINDS: tuple[Literal["auto", "video", "image"], ...] = ("auto", "video", "image")
EVERY = FrameSampling(n_frames=None, fps=1e6)
X264_OPEN_GOP = {"x264-params": "bframes=3:b-pyramid=normal:keyint=15:open-gop=1:scenecut=0"}
X265_OPEN_GOP = {"x265-params": "log-level=none:keyint=15:open-gop=1:bframes=3:scenecut=0"}
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "8"}

# name -> how it is written
CLIPS: dict[str, dict[str, Any]] = {
    "open-gop.mp4": {"options": X264_OPEN_GOP, "n_frames": 120},
    "open-gop-hevc.mp4": {"codec": "libx265", "options": X265_OPEN_GOP, "n_frames": 90},
    "closed-gop.mkv": {"b_frames": 2, "gop": 15, "n_frames": 120},
    "intra-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}, "n_frames": 90},
    "vp8.webm": {"codec": "libvpx", "gop": 20, "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 20, "options": FAST_VP9, "n_frames": 90},
    "stream.ts": {"b_frames": 2, "gop": 15, "n_frames": 90},
    "flash.flv": {"codec": "flv", "gop": 15},
    "pictures.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264-b-frames.avi": {"b_frames": 2},
    "mpeg4-b-frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "raw.h264": {"container_format": "h264"},
    "windows.wmv": {"codec": "wmv2"},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "ten-bit-lossless.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p10le", "n_frames": 20},
    "odd-size.mp4": {"size": (97, 65), "pix_fmt": "yuv444p"},
    "odd-size-subsampled.mkv": {"codec": "ffv1", "size": (101, 67), "n_frames": 20},
}
SEEKABLE = ["open-gop.mp4", "open-gop-hevc.mp4", "closed-gop.mkv", "intra-refresh.mp4", "vp9.webm", "stream.ts"]


@pytest.fixture(scope="session")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_clip(path, **CLIPS[name])

    return make


@pytest.fixture(scope="session")
def mp4(clip_of: Callable[[str], Path]) -> Path:
    return clip_of("open-gop.mp4")


def read_indices(clip: Clip, indices: list[int]) -> tuple[Pixels, list[str]]:
    sheet = canvas.Canvas(clip.info, np.array(indices, dtype=np.int64), None, None)
    warnings = decode.decode_onto(sheet, clip)
    frames, _, lost = sheet.finish()
    return frames, warnings + lost


def info_of(timestamps: list[float] | np.ndarray[Any, Any], frame_seconds: float = 0.04) -> VideoInfo:
    times = np.asarray(timestamps, dtype=np.float64)
    duration = float(times[-1]) + frame_seconds
    return VideoInfo(
        "x", "mov", "h264", "yuv420p", 96, 64, 0, len(times), duration, len(times) / duration, times, False
    )


def chosen(info: VideoInfo, **options: Any) -> list[int]:
    return [index for index, _ in sample_times(info, FrameSampling(**options))]


# --- which frames ------------------------------------------------------------------------------------------------


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


@settings(deadline=None, max_examples=200)
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
        ({"n_frames": 0}, "number of frames is 0; it must be 1 or more"),
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


# --- the right frames out of real files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIPS)
def test_every_container_gives_the_frames_asked_for(name: str, clip_of: Callable[[str], Path]) -> None:
    path, how = clip_of(name), CLIPS[name]
    n, (width, height) = how.get("n_frames", 60), how.get("size", (96, 64))
    info = probe_video(path)
    assert (info.n_frames, info.width, info.height, info.rotation) == (n, width, height, 0)
    assert info.duration == pytest.approx(n / 25, abs=2e-3)
    video = read_video(path, FrameSampling(n_frames=7))
    assert codes_of(video.frames) == video.indices.tolist() == np.linspace(0, n - 1, 7, dtype=int).tolist()
    assert video.timestamps == pytest.approx(video.indices / 25, abs=1.1e-3)
    assert video.frames.shape == (7, height, width, 3)
    guessed = name in ("raw.h264", "h264-b-frames.avi")
    assert ["counted" in w for w in video.warnings] == ([True] if guessed else [])


@pytest.mark.parametrize("name", SEEKABLE)
def test_jumping_gives_the_same_pixels_as_decoding_all(name: str, clip_of: Callable[[str], Path]) -> None:
    path = clip_of(name)
    whole, clip = decode_all(path), index_video(path)
    assert clip.table is not None
    assert len(whole) == clip.info.n_frames

    @settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.sets(st.integers(0, len(whole) - 1), min_size=1, max_size=6))
    def check(indices: set[int]) -> None:
        frames, warnings = read_indices(clip, sorted(indices))
        assert np.array_equal(frames, whole[sorted(indices)]), sorted(indices)
        assert warnings == []

    check()


@pytest.mark.parametrize("name", SEEKABLE)
def test_jumping_decodes_far_fewer_packets(
    name: str, clip_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip_of(name)
    clip, n_decoded, plain = index_video(path), [0], container.decode

    def counting(stream: Any, packet: Any, damage: Any) -> Any:
        n_decoded[0] += packet is not None
        return plain(stream, packet, damage)

    monkeypatch.setattr(decode, "decode", counting)
    frames, _ = read_indices(clip, [0, clip.info.n_frames - 1])
    assert codes_of(frames) == [0, clip.info.n_frames - 1]
    assert n_decoded[0] <= 50 < clip.info.n_frames


def test_a_jump_that_lands_too_late_is_noticed(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_far(container: Any, stream: Any, table: PacketTable, row: int) -> None:
        container.seek(int(table.dts[table.keys[-1]]), stream=stream)

    monkeypatch.setattr(decode, "_jump", too_far)
    video = read_video(mp4, FrameSampling(n_frames=2, start=2.0, end=2.4))
    assert codes_of(video.frames) == video.indices.tolist() == [50, 60]


def test_leading_frames_of_an_open_group_start_one_key_frame_sooner(mp4: Path) -> None:
    table = index_video(mp4).table
    assert table is not None
    leading = [row for row in table.shown for key in table.keys if key < row and table.pts[row] < table.pts[key]]
    assert leading, "the fixture must have an open group of pictures"
    for row in leading:
        key = key_row(table, int(row))
        assert table.pts[key] <= table.pts[row]
        assert key in table.keys


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 299), min_size=1, max_size=20), st.integers(1, 60), st.integers(0, 40))
def test_a_seek_plan_holds_every_frame_once_and_is_never_dearer(frames: set[int], gop: int, seek_cost: int) -> None:
    rows = np.arange(300, dtype=np.int64)
    table = PacketTable(pts=rows, dts=rows, keys=rows[::gop], shown=rows)
    plan = plan_segments(table, sorted(frames), seek_cost)
    assert [f for segment in plan for f in segment.frames] == sorted(frames)
    assert all(s.first <= f <= s.last for s in plan for f in s.frames)
    assert all(a.last < b.first for a, b in itertools.pairwise(plan))
    cost = sum(s.last - s.first + 1 + (seek_cost if s.first else 0) for s in plan)
    assert cost <= max(frames) + 1


def test_variable_frame_rate_keeps_the_true_times(tmp_path: Path) -> None:
    ticks = np.cumsum([0, 40, 40, 500, 10, 333, 1000, 40, 7, 40]).tolist()
    for name in ("vfr.mp4", "vfr.mkv"):
        path = write_clip(tmp_path / name, n_frames=10, ticks=ticks, ticks_per_second=1000)
        video = read_video(path, FrameSampling(n_frames=10))
        assert codes_of(video.frames) == list(range(10))
        assert video.timestamps == pytest.approx(np.array(ticks) / 1000, abs=1e-6)
        late = read_video(path, FrameSampling(n_frames=1, start=0.6))
        assert late.indices.tolist() == [5]
        assert late.timestamps[0] == pytest.approx(0.923)


def test_time_starts_at_the_first_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mkv", n_frames=5, ticks=[5000 + 40 * i for i in range(5)], ticks_per_second=1000)
    assert read_video(path, FrameSampling(n_frames=2)).timestamps == pytest.approx([0.0, 0.16])


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_rotation_is_applied(tmp_path: Path, turn: int, hflip: bool) -> None:
    upright = [picture(i) for i in (5, 300)]
    # stored so that turning counterclockwise by `turn`, then mirroring makes it upright (av_display_matrix_flip)
    stored = [np.rot90(p[:, ::-1] if hflip else p, -turn // 90) for p in upright]
    size = (stored[0].shape[1], stored[0].shape[0])
    path = write_clip(tmp_path / "r.mp4", n_frames=2, size=size, pictures=stored, rotation=turn, hflip=hflip)
    info, video = probe_video(path), read_video(path, FrameSampling(n_frames=2))
    assert (info.width, info.height) == (96, 64)
    assert codes_of(video.frames) == [5, 300]
    if not hflip:
        assert info.rotation == -turn % 360
        assert np.abs(video.frames.astype(int) - np.stack(upright)).mean() < 12
    assert video.warnings == ()


def test_odd_turns_pixels_that_are_not_square_and_hdr_are_reported(tmp_path: Path) -> None:
    tilted = write_clip(tmp_path / "tilted.mp4", n_frames=3, rotation=30)
    assert "only quarter turns" in probe_video(tilted).warnings[0]
    wide = write_clip(tmp_path / "wide.mp4", n_frames=3, aspect=Fraction(4, 3))
    assert "not square (4:3)" in probe_video(wide).warnings[0]
    hdr = write_clip(tmp_path / "hdr.mp4", n_frames=3, options={"x264-params": "transfer=smpte2084"})
    assert "HDR (PQ)" in probe_video(hdr).warnings[0]


def test_hidden_vp8_frames_are_not_counted(tmp_path: Path, clip_of: Callable[[str], Path]) -> None:
    path = hide_vp8_packet(clip_of("vp8.webm"), tmp_path / "hidden.webm", 10)
    video = read_video(path, EVERY)
    assert codes_of(video.frames) == [i for i in range(60) if i != 10]
    assert not any("could not be decoded" in w for w in video.warnings)


def test_a_change_of_size_inside_the_clip_is_reported(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "a.h264", n_frames=10, container_format="h264")
    large = write_clip(tmp_path / "b.h264", n_frames=10, size=(192, 128), container_format="h264")
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    video = read_video(both, EVERY)
    assert video.frames.shape == (20, 64, 96, 3)
    assert "10 of 20 frames are not of the first frame's size: resampled" in video.warnings


# --- memory, resizing, progress --------------------------------------------------------------------------------------


def test_resize_is_pillows_bicubic(mp4: Path) -> None:
    plain = read_video(mp4, FrameSampling(n_frames=3))
    small = read_video(mp4, FrameSampling(n_frames=3), resize=(28, 42))
    assert small.frames.shape == (3, 28, 42, 3)
    for a, b in zip(plain.frames, small.frames, strict=True):
        assert np.array_equal(np.asarray(PIL.Image.fromarray(a).resize((42, 28), PIL.Image.Resampling.BICUBIC)), b)
    with pytest.raises(UsageError, match=r"resize is \(0, 5\); it must be \(height, width\)"):
        read_video(mp4, resize=(0, 5))


def test_only_chosen_frames_are_held(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "many.mp4", n_frames=150, size=(320, 240), options={"preset": "ultrafast"})
    tracemalloc.start()
    read_video(path, FrameSampling(n_frames=150), resize=(24, 32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 320 * 240 * 3, "150 frames of the source are 34 MB"


def test_a_request_beyond_the_memory_limit_is_refused_before_decoding(
    mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "MAX_FRAME_BYTES", 20 * 96 * 64 * 3)
    monkeypatch.setattr(decode, "decode_onto", None)
    with pytest.raises(MediaError, match=r"21 frames of 96 x 64 need .* ask for fewer frames"):
        read_video(mp4, FrameSampling(n_frames=21))


def test_progress_counts_up_to_the_end(mp4: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_video(mp4, FrameSampling(n_frames=5), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_digest_is_that_of_the_bytes(mp4: Path) -> None:
    assert read_video(mp4, FrameSampling(2)).digest == hashlib.sha256(mp4.read_bytes()).hexdigest()


# --- damage ------------------------------------------------------------------------------------------------------


def test_damaged_frames_are_skipped_and_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = write_clip(tmp_path / "good.mp4", size=(320, 240), b_frames=2, gop=20)
    bad = tmp_path / "bad.mp4"
    lost = damage_packets(good, bad, [23, 30, 45])
    seen: list[tuple[int, int]] = []
    video = read_video(bad, FrameSampling(n_frames=60), progress=lambda done, total: seen.append((done, total)))
    assert video.indices.tolist() == [i for i in range(60) if i not in lost]
    assert video.warnings == ("3 of 60 frames could not be decoded and were skipped",)
    assert seen[-1] == (60, 60)
    assert video.timestamps == pytest.approx(video.indices / 25)
    near = read_video(bad, FrameSampling(n_frames=1, start=28 / 25))
    assert near.warnings == ("the file is damaged near the chosen frames; some may show traces of it",)
    assert capfd.readouterr() == ("", "")


def test_frames_the_decoder_marks_as_corrupt_are_left_out() -> None:
    good, bad = SimpleNamespace(is_corrupt=False), SimpleNamespace(is_corrupt=True)
    stream: Any = SimpleNamespace(decode=lambda packet: [good, bad])
    frames: list[Any] = list(container.decode(stream, None, container.Damage()))
    assert frames == [good]


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4")
    first = tmp_path / "all.mp4"
    damage_packets(good, first, range(60))
    with pytest.raises(MediaError, match="none of its 60 pictures could be decoded"):
        read_video(first)
    tail = tmp_path / "tail.mp4"
    lost = damage_packets(good, tail, [57, 58])
    with pytest.raises(MediaError, match="none of the 1 chosen frames could be decoded"):
        read_video(tail, FrameSampling(n_frames=1, start=min(lost) / 25))


def test_a_cut_off_file_with_its_index_in_front_gives_what_is_there(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4", container_options={"movflags": "faststart"})
    bad = cut(good, tmp_path / "cut.mp4", 0.75)
    video = read_video(bad, FrameSampling(n_frames=4))
    assert any(w.startswith("the file is cut off: ") and w.endswith("of 60 frames are there") for w in video.warnings)
    assert codes_of(video.frames) == video.indices.tolist()
    assert len(video.indices) >= 3


def test_a_cut_off_mkv_says_where_it_ends(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mkv", n_frames=120)
    video = read_video(cut(good, tmp_path / "cut.mkv", 0.5), FrameSampling(n_frames=4))
    assert any(w.startswith("the file announces 4.8 s, but its pictures end at") for w in video.warnings)


# --- pictures, still and moving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_videos_with_their_own_times(tmp_path: Path, suffix: str) -> None:
    delays = [100, 200, 50, 400, 100, 100]
    path = write_animation(tmp_path / f"a.{suffix}", 6, delays)
    video = open_media(path, FrameSampling(n_frames=6))
    assert isinstance(video, Video)
    assert codes_of(video.frames) == list(range(6))
    assert video.timestamps == pytest.approx([0, 0.1, 0.3, 0.35, 0.75, 0.85])
    assert video.duration == pytest.approx(0.95)
    assert read_video(path, FrameSampling(n_frames=3, end=0.8)).indices.tolist() == [0, 2, 4]
    assert probe_video(path).n_frames == 6
    still = open_media(path, kind="image")
    assert isinstance(still, Image)
    assert code_of(still.pixels) == 0
    assert still.warnings == ("the file holds 6 pictures; only the first is used",)


def test_a_gif_without_delays_runs_at_ten_frames_per_second(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.gif", 4, [0, 0, 0, 0])
    assert probe_video(path).timestamps == pytest.approx([0, 0.1, 0.2, 0.3])


def test_a_cut_off_gif_gives_what_is_there(tmp_path: Path) -> None:
    path = cut(write_animation(tmp_path / "a.gif", 10), tmp_path / "cut.gif", 0.6)
    video = read_video(path, FrameSampling(n_frames=3))
    assert codes_of(video.frames) == video.indices.tolist()
    assert 3 <= video.n_source_frames < 10


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.avif", "a.jp2"])
def test_still_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    PIL.Image.fromarray(picture(77)).save(path)
    image = open_media(path)
    assert isinstance(image, Image)
    assert code_of(image.pixels) == 77
    assert image.pixels.shape == (64, 96, 3)
    assert image.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.warnings == ()


def test_a_still_as_video_is_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(picture(3)).save(path)
    video = open_media(path, FrameSampling(n_frames=1), kind="video")
    assert isinstance(video, Video)
    assert (video.frames.shape, video.timestamps.tolist(), video.duration) == ((1, 64, 96, 3), [0.0], 0.0)
    assert video.warnings == ()


def test_exif_orientation(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    PIL.Image.fromarray(np.rot90(picture(9), 1)).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == (64, 96, 3)
    assert code_of(image.pixels) == 9


def test_colour_modes_follow_pillows_convert(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rgba = np.dstack([picture(9), np.full((64, 96), 7, np.uint8)])
    for name, mode in [("a.png", "RGBA"), ("b.png", "P"), ("c.png", "LA"), ("d.png", "1"), ("e.jpg", "CMYK")]:
        source = PIL.Image.fromarray(rgba).convert("RGB") if mode in ("P", "CMYK") else PIL.Image.fromarray(rgba)
        extra: dict[str, Any] = {"transparency": b"\0\1\2"} if mode == "P" else {}
        source.convert(mode).save(tmp_path / name, **extra)
        with PIL.Image.open(tmp_path / name) as reference:
            wanted = np.asarray(reference.convert("RGBA").convert("RGB") if mode == "P" else reference.convert("RGB"))
        assert np.array_equal(read_image(tmp_path / name).pixels, wanted), name
    assert list(recwarn) == []


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    grey = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    PIL.Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, np.repeat((grey >> 8)[..., None], 3, axis=2))


def test_the_suffix_does_not_matter(tmp_path: Path, mp4: Path) -> None:
    shutil.copy(mp4, tmp_path / "clip.jpg")
    assert isinstance(open_media(str(tmp_path / "clip.jpg")), Video)
    PIL.Image.fromarray(picture(1)).save(tmp_path / "still.mp4", format="png")
    assert isinstance(open_media(tmp_path / "still.mp4"), Image)
    odd = tmp_path / "concat:a|b %03d \u00e9\u4e2d?.mp4"
    shutil.copy(mp4, odd)
    assert isinstance(open_media(odd, FrameSampling(1)), Video)


# --- arrays ------------------------------------------------------------------------------------------------------


def test_arrays_are_taken_as_they_are() -> None:
    frames = np.stack([picture(i) for i in range(40)])
    video = open_media(frames)
    assert isinstance(video, Video)
    assert np.array_equal(video.frames, frames)
    assert np.isnan(video.timestamps).all()
    assert video.indices.tolist() == list(range(40))
    small = open_media(frames, resize=(32, 48))
    assert isinstance(small, Video)
    assert small.frames.shape == (40, 32, 48, 3)
    image = open_media(frames[0])
    assert isinstance(image, Image)
    assert np.array_equal(image.pixels, frames[0])
    one = open_media(frames[0], kind="video")
    assert isinstance(one, Video)
    assert one.frames.shape == (1, 64, 96, 3)
    assert len({video.digest, image.digest, one.digest}) == 3
    assert small.digest == video.digest, "the digest is that of what came in"


@pytest.mark.parametrize(
    ("item", "options"),
    [
        (np.zeros((4, 4), np.uint8), {}),
        (np.zeros((4, 4, 4), np.uint8), {}),
        (np.zeros((4, 4, 3), np.float32), {}),
        (np.zeros((0, 4, 4, 3), np.uint8), {}),
        (np.zeros((2, 4, 4, 3), np.uint8), {"kind": "image"}),
        (np.zeros((2, 4, 4, 3), np.uint8), {"sampling": FrameSampling(fps=1)}),
        (17, {}),
        ("x", {"kind": "movie"}),
    ],
)
def test_bad_items_are_refused(item: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_media(item, **options)


# --- bad files ---------------------------------------------------------------------------------------------------


def bad_files(folder: Path, mp4: Path) -> dict[str, tuple[Path, str]]:
    """What it is -> the file, and what its error must say."""
    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 30)
    (folder / "utf8.mp4").write_text("\u00e9" * 4000)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    PIL.Image.fromarray(picture(1)).save(folder / "good.jpg")
    os.mkfifo(folder / "pipe")
    return {
        "missing": (folder / "missing.mp4", "no such file"),
        "folder": (folder / "folder.mp4", "is a folder; name one video"),
        "empty": (folder / "empty.mp4", "is empty"),
        "text": (folder / "text.mp4", "holds text, not a video or image"),
        "text with a cut character": (folder / "utf8.mp4", "holds text"),
        "playlist": (folder / "list.mp4", "holds text"),
        "noise": (folder / "noise.mp4", "is not a video or image this program reads"),
        "heic": (folder / "photo.heic", "HEIC"),
        "pipe": (folder / "pipe", "not a regular file"),
        "cut mp4": (cut(mp4, folder / "cut.mp4", 0.6), "without a usable index"),
        "cut jpeg": (cut(folder / "good.jpg", folder / "cut.jpg", 0.5), "damaged picture"),
        "sound": (write_sound(folder / "sound.m4a"), "holds sound only (aac)"),
        "sound with cover": (write_sound(folder / "cover.mp4", cover=picture(0)), "holds sound only (aac)"),
    }


def test_every_bad_file_gets_one_clear_line(tmp_path: Path, mp4: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for what, (path, says) in bad_files(tmp_path, mp4).items():
        for kind in KINDS:
            with pytest.raises(MediaError) as caught:
                open_media(path, kind=kind)
            line = str(caught.value)
            assert says in line, (what, kind, line)
            assert line.startswith(f"{path}: "), (what, line)
            assert "\n" not in line
            assert "; " in line, "what came; what to do"
    assert capfd.readouterr() == ("", ""), "libav must not write by itself"


def test_a_video_given_as_image_is_refused(mp4: Path) -> None:
    with pytest.raises(MediaError, match=r"is a video \(h264, 4\.8 s\), not an image"):
        open_media(mp4, kind="image")


def test_names_the_file_system_cannot_hold() -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(AimError):
            open_media(name)


def test_files_are_closed_always(tmp_path: Path, mp4: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("counts open files through /proc")
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    sound = write_sound(tmp_path / "sound.m4a")
    gif = write_animation(tmp_path / "a.gif")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = len(os.listdir("/proc/self/fd"))
    for path in (text, sound):
        with pytest.raises(MediaError):
            read_video(path)
    for path in (mp4, gif):
        read_video(path, FrameSampling(2))
        with pytest.raises(KeyboardInterrupt):
            read_video(path, FrameSampling(2), progress=interrupt)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_filmed_clip() -> None:
    named = os.environ.get("AIM_LOCAL_TEST_CLIP")
    if not named:
        pytest.skip("set AIM_LOCAL_TEST_CLIP to a filmed clip")
    path = Path(named)
    whole, video = decode_all(path), read_video(path)
    assert np.array_equal(video.frames, whole[np.linspace(0, len(whole) - 1, len(video.frames), dtype=int)])
    assert (np.diff(video.timestamps) > 0).all()
