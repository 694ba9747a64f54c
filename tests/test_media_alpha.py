"""Clips with transparency: white shows where pictures show white, and opaque clips come as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_fixtures import Pixels, decode_all, write_clip

from aim_local.media import FrameSampling, read_video

W, H = 96, 64
WITH_ALPHA = [
    ("a.mov", "qtrle", "argb"),
    ("a.mov", "png", "rgba"),
    ("a.mkv", "ffv1", "yuva444p"),
    ("a.mov", "prores_ks", "yuva444p10le"),
    ("a.avi", "huffyuv", "bgra"),
]


def rgba(alpha: Any) -> Pixels:
    """Red over a hidden green, uint8 [H, W, 4]."""
    found = np.zeros((H, W, 4), np.uint8)
    found[: H // 2, :, 0], found[H // 2 :, :, 1] = 200, 150
    found[..., 3] = alpha
    return found


def write(path: Path, codec: str, pix_fmt: str, pixels: Pixels) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, pix_fmt
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return path


def halves() -> Pixels:
    """Opaque above, hidden below, half of it to be seen at the left."""
    alpha = np.full((H, W), 255)
    alpha[H // 2 :], alpha[:, :16] = 0, 128
    return rgba(alpha)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), WITH_ALPHA)
def test_transparent_parts_show_white(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    pixels = halves()
    video = read_video(write(tmp_path / name, codec, pix_fmt, pixels), FrameSampling(2))
    share = pixels[..., 3:] / 255
    wanted = pixels[..., :3] * share + 255 * (1 - share)
    assert np.abs(video.frames[0] - wanted).max() < 12  # codecs round
    assert video.warnings == ()


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), WITH_ALPHA)
@pytest.mark.parametrize("alpha", [255, 0])
def test_opaque_ones_and_an_alpha_left_unset_are_as_before(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, alpha: int
) -> None:
    path = write(tmp_path / name, codec, pix_fmt, rgba(alpha))
    assert np.array_equal(read_video(path, FrameSampling(3)).frames, decode_all(path))


def test_transparency_that_is_not_decoded_is_told(tmp_path: Path) -> None:
    fast = {"deadline": "realtime", "cpu-used": "8"}
    path = write_clip(tmp_path / "a.webm", 3, codec="libvpx-vp9", pix_fmt="yuva420p", options=fast)
    told = "the clip has transparency that its decoder leaves out: colours that stand under it are shown"
    assert read_video(path, FrameSampling(2)).warnings == (told,)
    opaque = write_clip(tmp_path / "b.webm", 3, codec="libvpx-vp9", options=fast)
    assert read_video(opaque, FrameSampling(2)).warnings == ()
