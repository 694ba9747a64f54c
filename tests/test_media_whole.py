"""Pictures that end early though their files look whole: as many bytes as there should be are counted, or tried."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from media_fixtures import codes_of, write_animation

from aim_local.errors import MediaError
from aim_local.media import FrameSampling, Video, open_media, outline_media, read_image, read_video
from aim_local.media.png_data import pixels_of_frames

NOISE = (
    np.random.default_rng(3).integers(0, 60, (120, 160, 3), dtype=np.uint8) + np.arange(160, dtype=np.uint8)[:, None]
)
PHOTO = PIL.Image.fromarray(NOISE)


def refused(path: Path) -> bool:
    """By every way to read it, in the words of a damaged picture."""
    for kind in ("auto", "video", "image"):
        with pytest.raises(MediaError, match=r": is a damaged picture \(.*\); copy or download it"):
            open_media(path, kind=kind)  # type: ignore[arg-type]
    return True


# --- PNG --------------------------------------------------------------------------------------------------------------


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + 8 + n]
        at += 12 + n


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in parts:
        made += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return made


def shortened(data: bytes, share: float, frame: int = 0) -> bytes:
    """Of one frame only this share of the pixels, as an intact stream."""
    parts, number = list[tuple[bytes, bytes]](), -1
    for kind, body in chunks(data):
        number += kind == b"fcTL"
        if kind in (b"IDAT", b"fdAT") and max(number, 0) == frame:
            skip = 4 if kind == b"fdAT" else 0
            pixels = zlib.decompress(body[skip:])
            body = body[:skip] + zlib.compress(pixels[: round(len(pixels) * share)])
        parts.append((kind, body))
    return png_of(parts)


PASSES = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)


def interlaced(depth: int, colour: int, width: int, height: int, n_passes: int = 7) -> bytes:
    """A PNG of zeros; bytes of its passes as the standard counts them."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = b""
    for x, y, dx, dy in PASSES[:n_passes]:
        columns, n_rows = len(range(x, width, dx)), len(range(y, height, dy))
        rows += bytes(1 + -(-columns * bits // 8)) * (n_rows if columns else 0)
    palette = [(b"PLTE", bytes(6))] if colour == 3 else []
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 1)
    return png_of([(b"IHDR", head), *palette, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


PNGS: dict[str, PIL.Image.Image] = {
    "colours": PHOTO,
    "palette": PHOTO.convert("P"),
    "two colours": PHOTO.convert("1"),
    "16 bits": PIL.Image.fromarray(NOISE[..., 0].astype(np.uint16) * 200),
    "alpha": PHOTO.convert("RGBA"),
}


@pytest.mark.parametrize("name", PNGS)
@pytest.mark.parametrize("n_rows", [1, 45, 90, 119, 59.5])
def test_a_png_of_some_rows(tmp_path: Path, name: str, n_rows: float) -> None:
    path = tmp_path / "a.png"
    PNGS[name].save(path)
    read_image(path)
    path.write_bytes(shortened(path.read_bytes(), n_rows / PHOTO.height))
    assert refused(path)


@pytest.mark.parametrize(("depth", "colour"), [(8, 2), (16, 6), (1, 3), (4, 0), (16, 0)])
@pytest.mark.parametrize(("size", "n_passes"), [((3, 5), 6), ((33, 17), 6), ((33, 17), 2), ((64, 64), 5)])
def test_an_interlaced_png(tmp_path: Path, depth: int, colour: int, size: tuple[int, int], n_passes: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(interlaced(depth, colour, *size))
    assert read_image(path).pixels.shape == (*size[::-1], 3)
    path.write_bytes(interlaced(depth, colour, *size, n_passes))
    assert refused(path)


@pytest.mark.parametrize("frame", [0, 1, 3, 5])
def test_an_animated_png(tmp_path: Path, frame: int) -> None:
    path = write_animation(tmp_path / "a.png", 6)
    path.write_bytes(shortened(path.read_bytes(), 0.5, frame))
    if not frame:
        assert refused(path)
        return
    video = read_video(path, FrameSampling(6))
    assert codes_of(video.frames) == list(range(frame))
    assert video.warnings[0] == f"the animation is damaged: its last {6 - frame} of 6 frames are left out"


def test_a_png_in_an_icon(tmp_path: Path) -> None:
    path, inside = tmp_path / "a.ico", io.BytesIO()
    PHOTO.resize((64, 64)).save(inside, "PNG")
    for share in (1.0, 0.5):
        data = shortened(inside.getvalue(), share)
        path.write_bytes(struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 64, 0, 0, 1, 24, len(data), 22) + data)
        assert refused(path) if share < 1 else read_image(path)


def test_only_what_is_needed_is_inflated(tmp_path: Path) -> None:
    """What stands behind the pixels is left alone, and a stream in many chunks is one."""
    path = tmp_path / "a.png"
    head = struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100 * 301) + bytes(1 << 26))
    parts = [(b"IDAT", part) for part in (pixels[at : at + 1000] for at in range(0, len(pixels), 1000))]
    path.write_bytes(png_of([(b"IHDR", head), *parts, (b"IEND", b"")]))
    (found,) = pixels_of_frames(path)
    assert found == (100 * 301, 100 * 301)


# --- JPEG -------------------------------------------------------------------------------------------------------------


JPEGS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "not subsampled": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "restarts in scans": {"progressive": True, "restart_marker_rows": 1},
}
EOI = b"\xff\xd9"


def jpeg(image: PIL.Image.Image = PHOTO, **how: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, "JPEG", quality=85, **how)
    return made.getvalue()


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("n_cut", [4, 40, 1000])
def test_a_jpeg_with_an_end_put_on(tmp_path: Path, name: str, mode: str, n_cut: int) -> None:
    path, data = tmp_path / "a.jpg", jpeg(PHOTO.convert(mode), **JPEGS[name])
    path.write_bytes(data)
    assert read_image(path).warnings == ()
    path.write_bytes(data[: -len(EOI) - n_cut] + EOI)
    assert refused(path)


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_jpeg_without_a_part_between_restarts(tmp_path: Path, place: int) -> None:
    """The markers themselves are right: they are numbered from 0 to 7, and a hole of eight is seen by nobody."""
    data = jpeg(restart_marker_blocks=2)
    at = [i for i in range(len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
    first, last = (at[place], at[place + 8]) if place >= 0 else (at[-1], len(data) - 2)
    (tmp_path / "a.jpg").write_bytes(data[:first] + data[last:])
    assert refused(tmp_path / "a.jpg")


@pytest.mark.parametrize("n_scans", [1, 4, 9])
def test_a_progressive_jpeg_without_its_last_scans(tmp_path: Path, n_scans: int) -> None:
    """It is a whole picture, if a coarse one, and said to be one."""
    data = jpeg(progressive=True)
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    end = max(at for at in (starts[n_scans], data.rfind(b"\xff\xc4", 0, starts[n_scans])) if at > starts[n_scans - 1])
    end = next(at for at in range(starts[n_scans - 1] + 2, end + 1) if data[at] == 0xFF and data[at + 1])
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:end] + EOI)
    for look in (open_media, outline_media):
        assert "the JPEG ends before its last scans" in str(look(path).warnings)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("size", [(1, 1), (17, 9), (160, 33), (1000, 16)])
def test_what_may_stand_in_a_whole_jpeg(tmp_path: Path, how: dict[str, Any], size: tuple[int, int]) -> None:
    """Bytes that fill up before a marker, too many coded ones, pictures and other bytes behind the end."""
    data, path = jpeg(PHOTO.resize(size), **how), tmp_path / "a.jpg"
    pixels = np.asarray(PIL.Image.open(io.BytesIO(data)))
    fills = data[:-2] + b"\xff\xff\xff" + EOI, data[:-2] + bytes(7) + EOI, data + bytes(99), data + jpeg()[:999]
    for made in (data, *fills):
        path.write_bytes(made)
        image = read_image(path)
        assert np.array_equal(image.pixels, pixels)
        assert not any("damaged" in line for line in image.warnings)


# --- others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cut", [5, 100, 2000])
def test_a_sequence_of_avif_that_is_cut_off(tmp_path: Path, n_cut: int) -> None:
    """It was read as one still picture, and nothing was said."""
    path = tmp_path / "a.avif"
    frames = [PHOTO.rotate(10 * i) for i in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert isinstance(open_media(path), Video)
    path.write_bytes(path.read_bytes()[:-n_cut])
    assert refused(path)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("n_cut", [40, 1000])
def test_a_webp_with_sizes_made_right(tmp_path: Path, lossless: bool, n_cut: int) -> None:
    """Its decoder tells by itself."""
    path = tmp_path / "a.webp"
    PHOTO.save(path, lossless=lossless)
    data = path.read_bytes()
    body = data[20 : 20 + int.from_bytes(data[16:20], "little") - n_cut]
    body += bytes(len(body) % 2)
    size = struct.pack("<I", len(body))
    path.write_bytes(b"RIFF" + struct.pack("<I", 12 + len(body)) + data[8:16] + size + body)
    with pytest.raises(MediaError, match="is a damaged picture"):
        open_media(path)


# --- cut anywhere -----------------------------------------------------------------------------------------------------


MORE = (pytest.param(kind, marks=pytest.mark.thorough) for kind in ("png", "gif", "webp", "tiff", "bmp"))


@pytest.mark.parametrize("kind", ["apng", "jpg", "ico", *MORE])
def test_cut_at_any_byte(kind: str, tmp_path: Path) -> None:
    """A picture or one line: never what a parser of ours raised."""
    small = PHOTO.resize((6, 4))
    whole, path = io.BytesIO(), tmp_path / f"cut.{kind}"
    if kind == "apng":
        more = [PIL.Image.new("RGB", small.size, colour) for colour in ("red", "blue")]
        small.save(whole, "png", save_all=True, append_images=more)
    else:
        small.save(whole, {"jpg": "jpeg"}.get(kind, kind))
    for n in range(len(whole.getvalue())):
        path.write_bytes(whole.getvalue()[:n])
        with contextlib.suppress(MediaError):
            open_media(path)
