"""Pictures that Pillow would go through in Python, part by part: very many parts are refused before it sees them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_local.errors import MediaError
from aim_local.media import FrameSampling, open_media, outline_media, pictures, read_image, read_video
from aim_local.media.jpeg_scans import segments
from aim_local.media.qoi import QoiPicture

PIXELS = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8)


def encoded(kind: str, **how: Any) -> bytes:
    made = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(made, kind, **how)
    return made.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


JPEG, PNG = encoded("JPEG"), encoded("PNG")
COMMENT, PIXELS_AT = b"\xff\xfe\0\2", 33  # where chunks may follow a PNG's head


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (JPEG[:2] + 10_001 * COMMENT + JPEG[2:], "has more than 10,000 segments before its pixels (JPEG)"),
        (JPEG[:2] + bytes([255]) * (2**18 + 1) + JPEG[2:], "has more than 262,144 bytes between its segments (JPEG)"),
        (PNG[:PIXELS_AT] + 50_001 * chunk(b"teSt") + PNG[PIXELS_AT:], "has more than 50,000 chunks of less than 1,024"),
        (PNG[:-12] + 50_001 * chunk(b"teSt") + PNG[-12:], "has more than 50,000 chunks of less than 1,024 bytes (PNG)"),
    ],
    ids=["comments", "fill", "chunks", "chunks-behind"],
)
def test_very_many_parts(data: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("Pillow opens it")

    path = tmp_path / "a"
    path.write_bytes(data)
    for name in ("JPEG", "PNG"):
        monkeypatch.setitem(PIL.Image.OPEN, name, (opened, PIL.Image.OPEN[name][1]))
    for read in (read_image, outline_media, open_media):
        with pytest.raises(MediaError) as told:
            read(path)
        assert str(told.value).startswith(f"{path}: {said}")
        assert "save it again without them" in str(told.value)


def test_many_parts_of_a_jpeg_between_its_scans(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG[:-2] + 100_001 * COMMENT + JPEG[-2:])
    with pytest.raises(MediaError, match="has more than 100,000 segments, or 4,000,000 restarts"):
        read_image(path)


@pytest.mark.parametrize(
    "data",
    [
        JPEG[:2] + 5000 * COMMENT + JPEG[2:],
        JPEG[:2] + bytes([255]) * 2**17 + JPEG[2:],
        JPEG[:2] + 5000 * b"\xff\xff\xff\xfe\0\2" + JPEG[2:],
        JPEG[:-2] + bytes([255]) * 2**20 + JPEG[-2:],
    ],
    ids=["comments", "fill", "both", "fill-behind"],
)
def test_many_parts(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    image = read_image(tmp_path / "a.jpg")
    assert np.array_equal(image.pixels, PIL.Image.open(io.BytesIO(JPEG)))
    assert image.warnings == ()


def test_fill_belongs_to_the_marker_behind_it() -> None:
    data = JPEG[:2] + b"\xff" * 7 + COMMENT + b"\xff" * 300_000 + JPEG[2:]
    first, second = list(segments(data))[:2]
    assert (first.start, first.end, first.n_fill) == (2, 2 + 7 + 4, 7)
    assert (second.start, second.n_fill, second.body) == (13, 300_000, JPEG[6:20])


def test_a_file_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kind of picture it is, is found out once, whoever asks."""
    asked, find = list[Path](), pictures.picture_kind

    def counted(path: Path, max_pixels: int) -> Any:
        asked.append(path)
        return find(path, max_pixels)

    monkeypatch.setattr(pictures, "picture_kind", counted)
    (tmp_path / "a.jpg").write_bytes(JPEG)
    for read in (read_image, read_video, open_media, lambda path: open_media(path, FrameSampling(1), "video")):
        asked.clear()
        read(tmp_path / "a.jpg")
        assert len(asked) == 1


# --- QOI, by FFmpeg ---------------------------------------------------------------------------------------------------


def by_pillow(data: bytes) -> np.ndarray[Any, Any]:
    """Reference: Pillow's own decoder."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def qoi_of(pixels: np.ndarray[Any, Any]) -> bytes:
    encoder = av.CodecContext.create("qoi", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt = "rgba" if pixels.shape[2] == 4 else "rgb24"
    frame = av.VideoFrame.from_ndarray(pixels, format=encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


@pytest.mark.parametrize("n_channels", [3, 4])
@pytest.mark.parametrize("steps", [2, 20, 256])  # flat areas, small steps, noise: all of QOI's ways to say a colour
def test_qoi_has_pillows_pixels(tmp_path: Path, n_channels: int, steps: int) -> None:
    pixels = np.random.default_rng(steps).integers(0, steps, (20, 31, n_channels)).astype(np.uint8)
    pixels = pixels.repeat(3, axis=1)
    (tmp_path / "a.qoi").write_bytes(qoi_of(pixels))
    assert np.array_equal(by_pillow(qoi_of(pixels)), pixels)
    with QoiPicture(io.BytesIO(qoi_of(pixels)), "a.qoi") as image:
        assert np.array_equal(np.asarray(image), pixels)
    found = read_image(tmp_path / "a.qoi").pixels
    with PIL.Image.open(tmp_path / "a.qoi") as image:
        assert np.array_equal(found, open_media(image).pixels)


def by_hand(body: bytes, n: int) -> list[tuple[int, ...]]:
    """Reference: n pixels by the specification. Pillow does not keep a colour that is repeated, FFmpeg does."""
    found, seen, last, at = list[tuple[int, ...]](), [(0, 0, 0, 0)] * 64, (0, 0, 0, 255), 0
    while len(found) < n:
        code, times, at = body[at], 1, at + 1
        if code >= 0xFE:
            last = (*body[at : at + 3], body[at + 3] if code == 0xFF else last[3])
            at += 3 + (code == 0xFF)
        elif code >> 6 == 0:
            last = seen[code]
        elif code >> 6 == 1:
            last = (*((last[i] + (code >> (4 - 2 * i) & 3) - 2) % 256 for i in range(3)), last[3])
        elif code >> 6 == 2:
            green, more, at = (code & 63) - 32, body[at], at + 1
            steps = (green + (more >> 4) - 8, green, green + (more & 15) - 8)
            last = (*((value + step) % 256 for value, step in zip(last, steps, strict=False)), last[3])
        else:
            times = (code & 63) + 1
        seen[sum(value * factor for value, factor in zip(last, (3, 5, 7, 11), strict=True)) % 64] = last
        found += [last] * times
    return found[:n]


@given(body=st.binary(min_size=100, max_size=200))
def test_any_qoi(body: bytes) -> None:
    """Codes that no encoder writes. 100 bytes are 20 pixels at least."""
    end = bytes(7) + b"\1"
    if end not in body:
        data = b"qoif" + struct.pack(">IIBB", 5, 4, 4, 0) + body + end
        with QoiPicture(io.BytesIO(data), "a.qoi") as image:
            assert np.asarray(image).reshape(-1, 4).tolist() == [list(pixel) for pixel in by_hand(body, 20)]


@pytest.mark.parametrize("has_end", [True, False])
@pytest.mark.parametrize("n_cut", [1, 4, 9, 500])
def test_a_qoi_that_is_cut_off(tmp_path: Path, n_cut: int, has_end: bool) -> None:
    data = qoi_of(PIXELS)
    (tmp_path / "a.qoi").write_bytes(data[: -8 - n_cut] + (data[-8:] if has_end else b""))
    with pytest.raises(MediaError, match=r"damaged picture .*its pixels end early"):
        read_image(tmp_path / "a.qoi")


def test_bytes_behind_a_qoi(tmp_path: Path) -> None:
    (tmp_path / "a.qoi").write_bytes(qoi_of(PIXELS) + b"\n")
    assert np.array_equal(read_image(tmp_path / "a.qoi").pixels, PIXELS)
