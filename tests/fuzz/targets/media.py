"""Pictures and clips that lie: mutants of small files, made part by part, and what looking at them may do.

A mutant has sizes, counts, delays and offsets of its format changed, parts dropped, doubled or moved, and checksums
made right again, so that it gets past the first look of a decoder.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image

from aim_local.media import FrameSampling, Image, open_media, outline_media

SUFFIXES = (".png", ".apng", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".ico", ".mp4", ".mkv", ".avi", ".ts", ".flv")
MEMORY_MIB = 2600  # a picture of 2^28 pixels: four bytes of each in the decoder, three as they are given

_SIDE = 24
_EDGES = (0, 1, 2, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PICTURES: dict[str, dict[str, Any]] = {
    "a.png": {}, "grey.png": {"mode": "I;16"}, "palette.png": {"mode": "P", "pnginfo": True}, "a.jpg": {},
    "progressive.jpg": {"progressive": True}, "turned.jpg": {"exif": True}, "a.webp": {}, "a.bmp": {}, "a.tif": {},
    "packed.tif": {"compression": "tiff_lzw"}, "a.ico": {}, "cmyk.jpg": {"mode": "CMYK"}, "alpha.png": {"mode": "RGBA"},
}  # fmt: skip
_MOVING = ("moving.gif", "moving.apng", "moving.webp", "pages.tif")
_CLIPS = {
    "a.mp4": "libx264", "a.mkv": "libx264", "a.avi": "mpeg4", "a.ts": "mpeg2video", "a.flv": "flv", "b.mkv": "mjpeg",
    "b.mp4": "mpeg4", "b.avi": "mjpeg",
}  # fmt: skip


def seeds(folder: Path) -> list[Path]:
    """A file of each format, a few kB in all of each."""
    made = [_still(folder / name, **options) for name, options in _PICTURES.items()]
    made += [_moving(folder / name) for name in _MOVING]
    return made + [_clip(folder / name, codec) for name, codec in _CLIPS.items()]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three changes, most of them of a kind that the format knows."""
    kinds = _kinds(data)
    for _ in range(rng.randint(1, 3)):
        change = rng.choice(kinds) if kinds and rng.random() < 0.85 else _any_bytes
        data = change(data, rng) or data
    return data


def read(path: Path) -> None:
    """As a question does: outlined, opened, frames decoded and fitted; the outline must have told the truth."""
    sampling = FrameSampling(n_frames=6)
    outline = outline_media(path, sampling)
    found = open_media(path, sampling, fit=_fit)
    told = outline.shape
    assert found.shape.kind == told.kind, f"{found.shape.kind} instead of {told.kind}"
    assert (found.shape.height, found.shape.width) == (told.height, told.width), "another size than the outline's"
    if not isinstance(found, Image):
        assert np.isfinite(found.timestamps).all(), "times that are no numbers"
        assert (np.diff(found.timestamps) >= 0).all(), "times that go back"
        assert len(found.frames) == told.n_frames or found.warnings, "frames are missing, and nothing says so"


def _fit(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(PIL.Image.fromarray(frame).resize((16, 16)))


# --- seeds -----------------------------------------------------------------------------------------------------------


def _picture(number: int, mode: str = "RGB") -> PIL.Image.Image:
    ramp = (np.arange(_SIDE * _SIDE * 3).reshape(_SIDE, _SIDE, 3) * 3 + 40 * number) % 256
    found = PIL.Image.fromarray(ramp.astype(np.uint8))
    return found.convert("I").convert("I;16") if mode == "I;16" else found.convert(mode)


def _still(path: Path, mode: str = "RGB", exif: bool = False, pnginfo: bool = False, **options: Any) -> Path:
    if exif:
        tags = PIL.Image.Exif()
        tags[0x0112] = 6
        options["exif"] = tags
    if pnginfo:
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Comment", "some words " * 9, zip=True)
        options["icc_profile"] = b"a profile" * 20
    _picture(0, mode).save(path, **options)
    return path


def _moving(path: Path) -> Path:
    first, *others = (_picture(i) for i in range(5))
    options = {} if path.suffix == ".tif" else {"duration": 80, "loop": 0}
    kind = {".gif": "GIF", ".apng": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[path.suffix]
    first.save(path, kind, save_all=True, append_images=others, **options)
    return path


def _clip(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(10):
            pixels = np.asarray(_picture(i).resize((64, 64)))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


# --- changes ---------------------------------------------------------------------------------------------------------

Change = Callable[[bytes, random.Random], bytes | None]


def _kinds(data: bytes) -> list[Change]:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return [_png]
    if data[:2] == b"\xff\xd8":
        return [_jpeg]
    if data[:4] == b"GIF8":
        return [_gif]
    if data[:4] == b"RIFF":
        return [_riff]
    if data[4:8] == b"ftyp":
        return [_mp4]
    if data[:4] == b"\x1aE\xdf\xa3":
        return [_mkv]
    if data[:4] in (b"II*\0", b"MM\0*"):
        return [_tiff]
    return [partial(_number_in, end=64)]


def _number(rng: random.Random, size: int) -> int:
    return (rng.choice(_EDGES) if rng.random() < 0.7 else rng.getrandbits(32)) & ((1 << 8 * size) - 1)


def _put(data: bytes, at: int, size: int, value: int, order: str = "big") -> bytes:
    return data[:at] + value.to_bytes(size, "big" if order == "big" else "little") + data[at + size :]


def _number_in(data: bytes, rng: random.Random, start: int = 0, end: int = 0, order: str = "big") -> bytes | None:
    size = rng.choice((1, 2, 4))
    last = min(len(data), end or len(data)) - size
    if last < start:
        return None
    return _put(data, rng.randint(start, last), size, _number(rng, size), order)


def _any_bytes(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 40:
        return data
    at = rng.randrange(len(data) - 20)
    match rng.randrange(5):
        case 0:
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + rng.randint(1, 20) :]
        case 2:
            return data[:at] + data[at : at + 20] * rng.randint(2, 9) + data[at + 20 :]
        case 3:
            return data[: max(30, at)]
    return data[:at] + rng.randbytes(rng.randint(1, 20)) + data[at + 20 :]


def _shuffled(parts: list[bytes], rng: random.Random) -> list[bytes]:
    """One part dropped, doubled many times, or moved."""
    i = rng.randrange(len(parts))
    match rng.randrange(4):
        case 0:
            return parts[:i] + parts[i + 1 :]
        case 1:
            return parts[:i] + parts[i : i + 1] * rng.choice((2, 3, 200)) + parts[i + 1 :]
        case 2:
            j = rng.randrange(len(parts))
            parts[i], parts[j] = parts[j], parts[i]
            return parts
    return [*parts[: i + 1], *parts[i:]]


def _png(data: bytes, rng: random.Random) -> bytes:
    chunks, at = list[tuple[bytes, bytes]](), 8
    while at + 12 <= len(data):
        (n,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + n]))
        at += 12 + n
    i = rng.randrange(len(chunks))
    name, body = chunks[i]
    roll = rng.random()
    if roll < 0.5:
        if name in (b"IDAT", b"zTXt", b"iCCP", b"fdAT") and rng.random() < 0.3:
            body = body[:4] + zlib.compress(bytes(rng.choice((1000, 3_000_000, 80_000_000))))
        else:
            body = _number_in(body, rng) or body
        chunks[i] = (name, body)
    elif roll < 0.6:
        chunks[i] = (rng.choice([c[0] for c in chunks] + [b"acTL", b"fcTL", b"eXIf", b"tRNS", b"PLTE", b"iTXt"]), body)
    written = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return data[:8] + b"".join(_shuffled(written, rng) if roll >= 0.6 else written)


def _jpeg(data: bytes, rng: random.Random) -> bytes:
    cuts = [m.start() for m in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    parts = [data[a:b] for a, b in zip(cuts, [*cuts[1:], len(data)], strict=True)]
    i = rng.randrange(len(parts))
    if rng.random() < 0.6:
        sized = [k for k, part in enumerate(parts) if part[1] in range(0xC0, 0xC3)]
        i = rng.choice(sized) if sized and rng.random() < 0.4 else i
        parts[i] = _number_in(parts[i], rng, start=2, end=24) or parts[i]
    else:
        parts = _shuffled(parts, rng)
    return data[: cuts[0]] + b"".join(parts)


def _gif(data: bytes, rng: random.Random) -> bytes:
    places = [6, 8, *(m.end() + k for m in re.finditer(rb"!\xf9\x04", data) for k in (1, 3))]
    frames = [m.start() for m in re.finditer(rb"!\xf9\x04", data)]
    places += [at + 9 + k for at in frames for k in (0, 2, 4, 6)]
    if rng.random() < 0.7:
        return _put(data, rng.choice(places), 2, _number(rng, 2), "little")
    parts = [data[a:b] for a, b in zip(frames, [*frames[1:], len(data) - 1], strict=True)]
    return data[: frames[0]] + b"".join(_shuffled(parts, rng)) + b";" if parts else data


def _riff(data: bytes, rng: random.Random) -> bytes | None:
    """WebP and AVI: chunks with little-endian lengths, lists among them."""
    places = [m.start() for m in re.finditer(rb"[A-Za-z0-9 ]{4}(?=.{2}\0\0)", data, re.DOTALL)]
    at = rng.choice(places) if places else 12
    match rng.randrange(4):
        case 0:
            return _put(data, at + 4, 4, _number(rng, 4), "little") if at + 8 <= len(data) else None
        case 1:
            return _number_in(data, rng, at + 8, at + 72, "little")
        case 2:
            end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            return data[:at] + data[at:end] * rng.choice((0, 2, 50)) + data[end:]
    return _number_in(data, rng, 12, 260, "little")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start + 8 <= end:
        n = int.from_bytes(data[start : start + 4], "big")
        stop = min(end, start + n) if n >= 8 else end
        yield start, stop
        if data[start + 4 : start + 8] in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"):
            yield from _boxes(data, start + 8, stop)
        start = stop


def _mp4(data: bytes, rng: random.Random) -> bytes | None:
    """Sizes, counts and times of a box; a box dropped or doubled (its parents' lengths stay: they lie then)."""
    boxes = [box for box in _boxes(data, 0, len(data)) if data[box[0] + 4 : box[0] + 8] != b"mdat"]
    start, end = rng.choice(boxes)
    match rng.randrange(6):
        case 0:
            return _put(data, start, 4, _number(rng, 4))
        case 1:
            return data[:start] + data[start:end] * rng.choice((0, 2, 30)) + data[end:]
    return _number_in(data, rng, start + 8, min(end, start + 96))


def _mkv(data: bytes, rng: random.Random) -> bytes | None:
    """Numbers behind well-known element names: sizes of pictures, times, blocks, and lengths of elements."""
    names = rb"\xb0|\xba|\x54\xb0|\x54\xba|\x2a\xd7\xb1|\x44\x89|\xe7|\xa3|\x23\xe3\x83|\x53\xab|\x53\xac|\x86|\x63\xa2"
    places = [m.end() for m in re.finditer(names, data)]
    if not places:
        return None
    at = rng.choice(places)
    if rng.random() < 0.3:
        return _put(data, at, 1, rng.choice((0x80, 0x81, 0x84, 0x88, 0xFF, 0x01, 0x40, rng.randrange(256))))
    return _number_in(data, rng, at, at + 9)


def _tiff(data: bytes, rng: random.Random) -> bytes | None:
    order = "little" if data[:2] == b"II" else "big"
    at = int.from_bytes(data[4:8], "little" if order == "little" else "big")
    if at + 2 > len(data):
        return _number_in(data, rng, 0, 16, order)
    n = int.from_bytes(data[at : at + 2], "little" if order == "little" else "big")
    entry = at + 2 + 12 * rng.randrange(max(1, min(n, 60)))
    place, size = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 2)))
    if entry + place + size > len(data):
        return None
    return _put(data, entry + place, size, _number(rng, size), order)
