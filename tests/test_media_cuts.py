"""Captures that start inside a group of pictures: frames that decode are taken, the others are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_fixtures import X264_OPEN_GOP, X265_OPEN_GOP, codes_of, cut_ts, join, write_clip

from aim_local.media import FrameSampling, outline_media, probe_video, read_video

KINDS: dict[str, dict[str, Any]] = {
    "closed": {"b_frames": 2, "gop": 15},
    "open": {"options": X264_OPEN_GOP},
    "hevc": {"codec": "libx265", "options": X265_OPEN_GOP},
    "mpeg2": {"codec": "mpeg2video", "b_frames": 2, "gop": 15},
    "mpeg4": {"codec": "mpeg4", "b_frames": 2, "gop": 15},
    "refresh": {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}},
}
LOST = "inside a group of pictures: left out "


@pytest.fixture(scope="module", params=KINDS)
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transport stream of 60 frames."""
    return write_clip(tmp_path_factory.mktemp("cut") / f"{request.param}.ts", **KINDS[request.param])


@pytest.mark.parametrize("packets", [10, 40])
def test_a_stream_cut_anywhere(stream: Path, tmp_path: Path, packets: int) -> None:
    path = cut_ts(stream, tmp_path / "cut.ts", packets)
    video = read_video(path, FrameSampling(8))
    first, codes = 60 - video.n_source_frames, codes_of(video.frames)
    assert 0 < first < 60
    assert codes == (video.indices + first).tolist(), "as many as were asked for, all of them whole"
    assert len(codes) == 8
    assert (codes[0], codes[-1]) == (first, 59)
    assert video.timestamps == pytest.approx(video.indices / 25)
    assert len(video.warnings) == 1
    assert f"the clip starts {LOST}" in video.warnings[0]
    assert outline_media(path, FrameSampling(8)).shape.indices == tuple(video.indices)
    assert outline_media(path, FrameSampling(8)).warnings == video.warnings


def test_a_whole_stream_says_nothing(stream: Path) -> None:
    info = probe_video(stream)
    assert (info.n_frames, info.warnings) == (60, ())


def test_two_cut_captures_joined(stream: Path, tmp_path: Path) -> None:
    one = cut_ts(stream, tmp_path / "cut.ts", 23)  # one cut in 16 shows no hole: packets are numbered so far
    alone = read_video(one, FrameSampling(60))
    both = read_video(join(tmp_path / "both.ts", one, one), FrameSampling(120))
    codes, kept = codes_of(alone.frames), codes_of(both.frames)
    second = kept.index(codes[0], 1)
    # the rest of a picture that the cut left is taken for the end of the one before it, which may not decode then
    assert kept[:second] == codes[:second]
    assert len(codes) - second <= 2
    assert kept[second:] == codes
    assert (np.diff(both.timestamps) > 0).all()


@pytest.mark.parametrize("n_bytes", [900, 2000])
def test_a_program_stream_cut_anywhere(tmp_path: Path, n_bytes: int) -> None:
    whole = write_clip(tmp_path / "a.mpg", codec="mpeg2video", b_frames=2, gop=15)
    (tmp_path / "cut.mpg").write_bytes(whole.read_bytes()[n_bytes:])
    video = read_video(tmp_path / "cut.mpg", FrameSampling(6))
    first = 60 - video.n_source_frames
    assert codes_of(video.frames) == (video.indices + first).tolist()
    assert any(LOST in w for w in video.warnings)


def test_a_raw_stream_cut_anywhere(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.h264", b_frames=2, gop=15, container_format="h264")
    (tmp_path / "cut.h264").write_bytes(whole.read_bytes()[1500:])
    video = read_video(tmp_path / "cut.h264", FrameSampling(6))
    assert codes_of(video.frames) == (video.indices + 60 - video.n_source_frames).tolist()
    assert [LOST in w or "counted at 25" in w for w in video.warnings] == [True, True]
