"""Clips whose frames carry EXIF of their own, as cameras write MJPEG: read, and turned as it asks."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from av.sidedata.sidedata import Type

from aim_local.media import FrameSampling, outline_media, probe_video, read_video

N, RATE = 3, 10
CLIPS = [("a.avi", "mjpeg"), ("a.mov", "mjpeg"), ("a.mkv", "mjpeg"), ("a.mov", "png")]


def still(index: int) -> PIL.Image.Image:
    """48 x 32, another colour in each corner; the upper left one tells the frames apart."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16] = 80 * index + 40
    pixels[16:, :16], pixels[:16, 32:], pixels[16:, 32:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    return PIL.Image.fromarray(pixels)


def encoded(index: int, codec: str, orientation: int | None) -> bytes:
    exif, out = PIL.Image.Exif(), io.BytesIO()
    exif[0x010F] = "Camera"
    if orientation is not None:
        exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if codec == "mjpeg" else {}
    still(index).save(out, "JPEG" if codec == "mjpeg" else "PNG", exif=exif, **options)
    return out.getvalue()


def write_frames(path: Path, codec: str, frames: list[bytes], size: tuple[int, int] = (48, 32)) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj444p" if codec == "mjpeg" else "rgb24"
        for i, data in enumerate(frames):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, RATE)
            packet.is_keyframe = True
            container.mux(packet)
    return path


@pytest.mark.parametrize(("name", "codec"), CLIPS)
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_frames_are_turned_as_pillow_turns_them(tmp_path: Path, name: str, codec: str, orientation: int | None) -> None:
    data = [encoded(i, codec, orientation) for i in range(N)]
    path = write_frames(tmp_path / name, codec, data)
    video, info = read_video(path, FrameSampling(N)), probe_video(path)
    wanted = [np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(d))), np.int16) for d in data]
    assert video.warnings == ()
    assert (info.height, info.width) == wanted[0].shape[:2]
    assert outline_media(path, sampling=FrameSampling(N)).shape.n_frames == N
    for got, want in zip(video.frames, wanted, strict=True):
        assert np.abs(got - want).max() <= 6  # two decoders of JPEG


def test_one_frame_turned_otherwise(tmp_path: Path) -> None:
    """Each frame as it says; a size that differs from the first one's is resampled, as elsewhere."""
    data = [encoded(i, "png", orientation) for i, orientation in enumerate((1, 3, 6))]
    video = read_video(write_frames(tmp_path / "a.mov", "png", data), FrameSampling(N))
    assert np.array_equal(video.frames[1], np.asarray(still(1).rotate(180)))
    assert [w.startswith("1 of 3 frames are not of the first frame's size") for w in video.warnings] == [True]


@pytest.mark.parametrize("number", [31, 32, 500])
def test_types_of_side_data_without_a_name(number: Any) -> None:
    """Of FFmpegs to come, too. Those with a name stay what they are."""
    found, matrix = Type(number), Type(Type.DISPLAYMATRIX.value)
    assert found.value == number
    assert found not in list(Type)
    assert matrix is Type.DISPLAYMATRIX
