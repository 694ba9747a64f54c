"""JPEGs whose coded pixels were overwritten: Pillow shows what comes of them, and says nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from aim_local.errors import MediaError
from aim_local.media import Image, Video, read_image, read_video

PHOTO = PIL.Image.fromarray(np.random.default_rng(3).integers(0, 120, (120, 160, 3), np.uint8))
JPEGS: dict[str, dict[str, Any]] = {
    "sequential": {}, "not subsampled": {"subsampling": 0}, "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3}, "restarts in scans": {"progressive": True, "restart_marker_rows": 1},
}  # fmt: skip


def jpeg(**how: Any) -> bytes:
    made = io.BytesIO()
    PHOTO.save(made, "JPEG", quality=85, **how)
    return made.getvalue()


def told(read: Callable[[Path], Image | Video], path: Path) -> str:
    """The error, or the first warning."""
    try:
        return str(next(iter(read(path).warnings), ""))
    except MediaError as e:
        return str(e)


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_hole_in_a_jpeg(tmp_path: Path, name: str, place: float) -> None:
    """Bytes that another file wrote over: refused where pixels are missing then, else a note."""
    data, path = jpeg(**JPEGS[name]), tmp_path / "a.jpg"
    at, hole = int(place * len(data)), np.random.default_rng(7).integers(0, 255, 800, np.uint8).tobytes()
    path.write_bytes(data[:at] + hole + data[at + 800 :])
    said = "is damaged inside", "its pixels end early", "ends before its last scans"
    assert any(words in told(read_image, path) for words in said)
    assert told(read_image, path) == told(read_video, path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])  # FFmpeg does not know CMYK with halved colours
@pytest.mark.parametrize("quality", [1, 50, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_sound_jpeg_is_not_called_damaged(tmp_path: Path, mode: str, quality: int, subsampling: int) -> None:
    for more in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}):
        made = io.BytesIO()
        how: dict[str, Any] = {"quality": quality, **more} | ({} if mode == "L" else {"subsampling": subsampling})
        PHOTO.resize((47, 31)).convert(mode).save(made, "JPEG", **how)
        (tmp_path / "a.jpg").write_bytes(made.getvalue())
        assert read_image(tmp_path / "a.jpg").warnings == ()


@pytest.mark.parametrize("kind", [0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE])
@pytest.mark.parametrize("body", [b"Exif\0\0broken", b"http://ns.adobe.com/xap/1.0/\0<", b"AVI1", b"\xff" * 40])
def test_odd_metadata_are_no_damage_inside(tmp_path: Path, kind: int, body: bytes) -> None:
    data = jpeg()
    segment = bytes([0xFF, kind]) + (len(body) + 2).to_bytes(2, "big") + body
    (tmp_path / "a.jpg").write_bytes(data[:20] + segment + data[20:])
    assert not any("inside" in line for line in read_image(tmp_path / "a.jpg").warnings)
