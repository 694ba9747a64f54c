"""Video files: frames really are the ones asked for, in every container, with their true times."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_fixtures import (
    CLIPS,
    Pixels,
    codes_of,
    decode_all,
    hide_vp8_packet,
    picture,
    write_clip,
)
from thorough import examples

from aim_local.media import (
    FrameSampling,
    canvas,
    container,
    decode,
    probe_video,
    read_video,
)
from aim_local.media.index import Clip, index_video
from aim_local.media.seek import PacketTable, key_row, plan_segments

EVERY = FrameSampling(n_frames=None, fps=1e6)
SEEKABLE = ["open-gop.mp4", "open-gop-hevc.mp4", "closed-gop.mkv", "intra-refresh.mp4", "vp9.webm", "stream.ts"]


def read_indices(clip: Clip, indices: list[int]) -> tuple[Pixels, list[str]]:
    info = clip.info
    wanted = np.array(indices, dtype=np.int64)
    sheet = canvas.Canvas(info.source, (info.height, info.width), wanted, canvas.Keep(), None)
    warnings, _ = decode.decode_onto(sheet, clip)
    frames, _, lost = sheet.finish()
    return frames, warnings + lost


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

    @settings(deadline=None, max_examples=examples(50), suppress_health_check=list(HealthCheck), derandomize=True)
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


@settings(deadline=None, max_examples=examples(100))
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


def test_digest_is_that_of_the_bytes(mp4: Path) -> None:
    assert read_video(mp4, FrameSampling(2)).digest == hashlib.sha256(mp4.read_bytes()).hexdigest()


def test_a_filmed_clip() -> None:
    named = os.environ.get("AIM_LOCAL_TEST_CLIP")
    if not named:
        pytest.skip("set AIM_LOCAL_TEST_CLIP to a filmed clip")
    path = Path(named)
    whole, video = decode_all(path), read_video(path)
    assert np.array_equal(video.frames, whole[np.linspace(0, len(whole) - 1, len(video.frames), dtype=int)])
    assert (np.diff(video.timestamps) > 0).all()
