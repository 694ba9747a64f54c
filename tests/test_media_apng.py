"""Animated PNGs with a picture beside the animation, which browsers and FFmpeg leave out of it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from aim_local.media import FrameSampling, Image, Video, open_media, outline_media, probe_video, read_image, read_video

Colour = tuple[int, int, int, int]

BLUE, RED, GREEN, CLEAR = (0, 0, 255, 255), (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 0, 0)
SIDE, DELAY = 16, 0.1


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pixels(side: int, colour: Colour) -> bytes:
    return zlib.compress((b"\0" + bytes(colour) * side) * side)


def write_apng(path: Path, beside: Colour | None, *frames: Colour, side: int = SIDE, blend: int = 0) -> Path:
    """https://www.w3.org/TR/png-3/#apng: frames in the upper left, `side` pixels wide and high."""
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 6, 0, 0, 0))
    data += chunk(b"acTL", struct.pack(">II", len(frames), 0))
    if beside:
        data += chunk(b"IDAT", pixels(SIDE, beside))
    number = 0
    for i, colour in enumerate(frames):
        data += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, side, side, 0, 0, 1, 10, 0, blend))
        is_first = not i and not beside
        body = pixels(side, colour)
        data += chunk(b"IDAT", body) if is_first else chunk(b"fdAT", struct.pack(">I", number + 1) + body)
        number += 1 if is_first else 2
    path.write_bytes(data + chunk(b"IEND", b""))
    return path


def by_ffmpeg(path: Path) -> list[list[int]]:
    with av.open(str(path), format="apng") as container:
        return [frame.to_ndarray(format="rgb24")[0, 0].tolist() for frame in container.decode(video=0)]


@pytest.mark.parametrize("beside", [None, BLUE], ids=["first frame", "beside"])
def test_the_picture_beside_is_no_frame(tmp_path: Path, beside: Colour | None) -> None:
    path = write_apng(tmp_path / "a.png", beside, RED, GREEN)
    video, info = read_video(path, FrameSampling(2)), probe_video(path)
    assert [frame[0, 0].tolist() for frame in video.frames] == by_ffmpeg(path) == [[255, 0, 0], [0, 255, 0]]
    assert video.timestamps == pytest.approx([0, DELAY])
    assert info.n_frames == 2
    assert info.duration == pytest.approx(2 * DELAY)
    assert video.warnings == ()
    assert outline_media(path).shape.n_frames == 2


def test_an_animation_of_one_frame_is_a_still_picture(tmp_path: Path) -> None:
    path = write_apng(tmp_path / "a.png", BLUE, RED)
    found = open_media(path)
    assert isinstance(found, Image)
    assert (found.pixels == (255, 0, 0)).all()
    assert found.warnings == ()
    assert outline_media(path).shape.kind == "image"
    as_video = open_media(path, kind="video")
    assert isinstance(as_video, Video)
    assert (as_video.frames == (255, 0, 0)).all()


def test_as_an_image_it_is_the_first_frame(tmp_path: Path) -> None:
    found = read_image(write_apng(tmp_path / "a.png", BLUE, RED, GREEN))
    assert (found.pixels == (255, 0, 0)).all()
    assert found.warnings == ("the file holds 2 pictures; only the first is used",)


@pytest.mark.parametrize("blend", [0, 1])
def test_nothing_of_it_is_under_the_frames(tmp_path: Path, blend: int) -> None:
    """Around a small frame, and through one that is clear: white."""
    path = write_apng(tmp_path / "a.png", BLUE, RED, CLEAR, side=8, blend=blend)
    first, second = read_video(path).frames
    assert first[12, 12].tolist() == second[12, 12].tolist() == [255, 255, 255]
    assert first[4, 4].tolist() == [255, 0, 0]
    assert second[4, 4].tolist() == ([255, 0, 0] if blend else [255, 255, 255])


@pytest.mark.parametrize("n_less", [30, 60])
def test_a_file_that_is_cut_off_shows_what_is_there(tmp_path: Path, n_less: int) -> None:
    path = write_apng(tmp_path / "a.png", BLUE, RED, GREEN)
    path.write_bytes(path.read_bytes()[:-n_less])
    video = read_video(path)
    assert np.array_equal(video.frames[0, 0, 0], (255, 0, 0))
    assert video.warnings[0].startswith("the animation is damaged: its last 1 of 2 frames")
