"""Broken metadata: never a reason to refuse a picture, and told where a turn may be lost."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import av
import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local.media import outline_media, read_image
from aim_local.media.orientation import orientation_of

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
FORMATS = ["jpg", "png", "webp", "tiff"]


def exif(kind: int, count: int, value: bytes, following: int = 0) -> bytes:
    """A block with one entry, the orientation."""
    entry = struct.pack("<HHI", 274, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 1) + entry + struct.pack("<I", following)


def check(path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(height and width, warnings) of a picture whose plan knows the same size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own
        image, shape = read_image(path), outline_media(path).shape
    assert (shape.height, shape.width) == image.pixels.shape[:2]
    return image.pixels.shape[:2], image.warnings


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("data", "turned", "told"),
    [
        (exif(3, 1, b"\6"), True, False),
        (exif(3, 1, b"\1"), False, False),
        (exif(3, 1, b"\0"), False, False),  # not known
        (exif(3, 1, b"\x09"), False, True),
        (exif(3, 1, b"\xff\xff"), False, True),
        (exif(3, 1, b"\6", following=8), True, False),  # the next directory is the same one
    ],
)
def test_orientations(tmp_path: Path, suffix: str, data: bytes, turned: bool, told: bool) -> None:
    path = tmp_path / f"a.{suffix}"
    PIL.Image.fromarray(PIXELS).save(path, exif=data)
    size, said = check(path)
    assert size == ((36, 24) if turned else (24, 36))
    assert [w.startswith("its EXIF orientation is ") for w in said] == ([True] if told else [])


@pytest.mark.parametrize(
    "data",
    [
        exif(2, 4, b"abc\0"),  # text
        exif(5, 1, b"\x08"),  # a fraction
        exif(7, 4, b"\6\0\0\0"),
        exif(99, 1, b"\6"),
        exif(3, 2**32 - 1, b"\6"),
        exif(3, 1, b"\6")[:17],  # cut off
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0",
        b"no exif at all",
        b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 2**31 - 1),
        b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 65535),
    ],
)
def test_what_is_no_orientation_is_ignored(tmp_path: Path, data: bytes) -> None:
    for suffix in ("jpg", "webp"):
        path = tmp_path / f"a.{suffix}"
        try:
            PIL.Image.fromarray(PIXELS).save(path, exif=data)
        except Exception:  # Pillow will not write it
            continue
        size, said = check(path)
        assert size == (24, 36)
        assert len(said) <= 1


@pytest.mark.parametrize("xmp", [b'<x tiff:Orientation="6"/>', b'<x tiff:Orientation="', b"\xff\xfe<", b'="99"'])
def test_xmp(tmp_path: Path, xmp: bytes) -> None:
    for suffix in ("jpg", "webp"):
        PIL.Image.fromarray(PIXELS).save(tmp_path / f"a.{suffix}", xmp=xmp)
        assert check(tmp_path / f"a.{suffix}")[0] == ((36, 24) if b'"6"' in xmp else (24, 36))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_are_pillows(tmp_path: Path, orientation: int) -> None:
    PIL.Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif(3, 1, bytes([orientation])))
    with PIL.Image.open(tmp_path / "a.png") as image:
        wanted = np.asarray(PIL.ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(tmp_path / "a.png").pixels, wanted)


@settings(deadline=None, max_examples=examples(60), suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.integers(0, 40), st.binary(min_size=1, max_size=8))
def test_any_bytes_in_the_metadata(tmp_path: Path, at: int, noise: bytes) -> None:
    whole = exif(3, 1, b"\6")
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(PIXELS).save(path, exif=whole)
    data = bytearray(path.read_bytes())
    start = data.find(b"Exif\0\0") + 6
    end = min(start + at + len(noise), start + len(whole) - 6)
    data[start + at : end] = noise[: max(0, end - start - at)]
    path.write_bytes(data)
    assert sorted(check(path)[0]) == [24, 36]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_stands_as_ffmpeg_puts_it(tmp_path: Path, orientation: int) -> None:
    """AVIF has turns and mirrors of its own (irot, imir)."""
    corners = np.zeros((32, 48, 3), np.uint8)
    corners[:16, :24, 0] = corners[:16, 24:, 1] = corners[16:, :24, 2] = 255
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    path = tmp_path / "a.avif"
    PIL.Image.fromarray(corners).save(path, exif=exif, quality=100, subsampling="4:4:4")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    wanted = orientation_of(frame).apply(frame.to_ndarray(format="rgb24"))
    image = read_image(path)
    assert np.abs(image.pixels.astype(int) - wanted).max() <= 2
    assert image.warnings == ()
