"""Colours of clips: the range and the matrix that a file says, deinterlaced or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from aim_local.media import FrameSampling, read_video

COLOUR = (200, 60, 30)
MATRICES = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}  # AVColorSpace


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("interlaced", [False, True])
def test_range_and_matrix(tmp_path: Path, full: bool, matrix: str, interlaced: bool) -> None:
    path, space, extent = tmp_path / "a.mp4", MATRICES[matrix], 2 if full else 1
    says = f"colormatrix={matrix}:range={'pc' if full else 'tv'}{':tff=1' if interlaced else ''}"
    flat = np.full((64, 96, 3), COLOUR, np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"x264-params": says, "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.color_range, stream.codec_context.colorspace = extent, space
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(flat, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=space, dst_color_range=extent
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video = read_video(path, FrameSampling(1))
    assert np.abs(video.frames.astype(int) - COLOUR).max() <= 6
    assert any("interlaced" in w for w in video.warnings) == interlaced
