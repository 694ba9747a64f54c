"""GIFs whose frames lie outside of the picture: what is inside is shown, as in browsers; the rest takes no room."""

from __future__ import annotations

import io
import struct
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from server_files import peak_memory

from aim_local.media import FrameSampling, open_media, outline_media

MIB = 2**20
SIDE = 24
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SAMPLING = FrameSampling(n_frames=8)


def write_shifted(path: Path, left: int, top: int, index: int = 1) -> Path:
    """Three frames of one colour each; one of them begins elsewhere."""
    out = io.BytesIO()
    first, *others = (PIL.Image.new("RGB", (SIDE, SIDE), colour) for colour in COLOURS)
    first.save(out, "GIF", save_all=True, append_images=others, duration=100, optimize=False, disposal=1)
    data, at = bytearray(out.getvalue()), -1
    for _ in range(index + 1):
        at = data.index(b"\x2c" + struct.pack("<HHHH", 0, 0, SIDE, SIDE), at + 1)
    struct.pack_into("<HH", data, at + 1, left, top)
    path.write_bytes(data)
    return path


def colours(path: Path) -> list[tuple[list[int], list[int]]]:
    """Of each frame, the upper left and the lower right pixel."""
    found = open_media(path, SAMPLING)
    assert found.frames.shape[1:] == (SIDE, SIDE, 3)
    return [(frame[0, 0].tolist(), frame[-1, -1].tolist()) for frame in found.frames]


@pytest.mark.parametrize(
    ("left", "top", "shown"),
    [(12, 0, (0, 1)), (0, 12, (0, 1)), (24, 0, (0, 0)), (2000, 1000, (0, 0)), (0, 0, (1, 1))],
)
def test_what_is_inside_is_shown(tmp_path: Path, left: int, top: int, shown: tuple[int, int]) -> None:
    red, green, blue = map(list, COLOURS)
    found = colours(write_shifted(tmp_path / "clip.gif", left, top))
    assert found == [(red, red), tuple((red, green)[i] for i in shown), (blue, blue)]


@pytest.mark.parametrize(("index", "n_kept"), [(1, 1), (2, 2)])
def test_a_frame_far_away_is_damage(tmp_path: Path, index: int, n_kept: int) -> None:
    """Pillow would make a picture of 59 megapixels of it, and of each frame behind it."""
    path = write_shifted(tmp_path / "clip.gif", 1800, 32767, index)
    assert peak_memory(partial(outline_media, path, SAMPLING)) < 20 * MIB
    assert peak_memory(partial(open_media, path, SAMPLING)) < 20 * MIB
    found = open_media(path, SAMPLING)
    assert np.asarray(found.frames).shape == (n_kept, SIDE, SIDE, 3)
    assert any(f"its last {3 - n_kept} of 3 frames are left out" in line for line in found.warnings)
    assert outline_media(path, SAMPLING).shape.n_frames == n_kept
