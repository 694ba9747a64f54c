"""TIFF files, of whose many kinds Pillow reads most, some of them wrong, and says little of the others.

Knows which kinds those are, and how a TIFF tells its kind (TIFF 6.0, by the numbers of its tags). What only Pillow's
own reader gets wrong is read by libtiff, which Pillow brings; what is still wrong then is refused by its kind. Leaves
to others: what the values mean as colours (colours.py), and damage.
https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Mapping
from typing import IO, Any

import PIL.Image
import PIL.ImagePalette
import PIL.TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from aim_local.errors import MediaError
from aim_local.native.tiff import lacks_codec

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOUR, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _N_SAMPLES, _PLANES, _MAP, _TILES, _INKS, _EXTRA, _FORMAT = 273, 277, 284, 320, 324, 332, 338, 339
_PURPOSE, _REDUCED = 254, 1
_RAW, _IN_PLANES, _REVERSED, _OTHER_INKS, _MULTIPLIED = 1, 2, 2, 2, 1  # values of these tags
_YCBCR = 6
_COLOURS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", _YCBCR: "YCbCr", 8: "LAB", 9: "LAB", 10: "LAB",
    32803: "camera's raw", 32844: "LogL", 32845: "LogLuv", 34892: "camera's raw",
}  # fmt: skip
_FORMATS = {1: "", 2: " (signed)", 3: " (floating point)", 5: " (complex)", 6: " (complex)"}
_COMPRESSIONS = {
    1: "", 2: "CCITT", 3: "fax (G3)", 4: "fax (G4)", 5: "LZW", 6: "JPEG", 7: "JPEG", 8: "deflate", 32773: "PackBits",
    32946: "deflate", 34676: "SGI Log", 34677: "SGI Log", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA",
    50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
# libtiff gives values in the machine's order of bytes; Pillow takes these for the file's
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
_BY_PLANES = frozenset({"RGB", "RGBA", "CMYK", "YCbCr"})  # modes whose planes Pillow takes from libtiff as they are
_BIG = b"MM\0\x2b"
_DEPTHS = frozenset(range(1, 129))  # bits of a sample
_MOST_DEPTHS = 8  # different ones that are told
_UNREADABLE = (SyntaxError, LookupError, TypeError, ValueError, EOFError, OSError, struct.error)  # of a damaged TIFF
_switch = threading.Lock()


def open_tiff(file: IO[bytes], name: str | bytes) -> TiffImageFile:
    """Lazily read, as by Pillow. Raises MediaError for a kind that is not read right; for damage Pillow's errors."""
    try:
        image = TiffImageFile(file, name)
    except SyntaxError:
        image = _opened_by_libtiff(file, name)  # planes beside the colours stop Pillow's own reader alone
    return set_decoder(image, name)


def set_decoder(image: TiffImageFile, name: str | bytes) -> TiffImageFile:
    """The picture, or the same one opened anew, so that its pixels will be decoded right. Raises MediaError."""
    if not image.tile:  # decoded already
        return image
    tags = image.tag_v2
    if _is_wrong(image.mode, tags) or lacks_codec(tags.get(_COMPRESSION, _RAW)):
        raise _refused(name, _kind(tags))
    if tags.get(_COMPRESSION, _RAW) == _RAW and _needs_libtiff(tags):
        assert image.fp is not None, "its pixels are still to be read"
        image = _opened_by_libtiff(image.fp, name, image.tell())
    _set_raw_mode(image)
    if image.mode in ("P", "PA") and max(tags[_MAP]) < 256:  # colours of 8 bits, which old programs write
        image.palette = PIL.ImagePalette.raw("RGB;L", bytes(tags[_MAP]))
    return image


def _needs_libtiff(tags: Mapping[int, Any]) -> bool:
    """Of an uncompressed one.

    Pillow's own reader takes every value of a plane for 8 bits as they are, and Cb and Cr as given for each pixel; it
    has no modes for some reversed bits.
    """
    in_planes, is_reversed = tags.get(_PLANES) == _IN_PLANES, tags.get(_FILL_ORDER) == _REVERSED
    return in_planes or is_reversed or tags.get(_COLOUR) == _YCBCR


def _is_wrong(mode: str, tags: Mapping[int, Any]) -> bool:
    """Whether Pillow gives other pixels than the file's, also through libtiff."""
    if tags.get(_PLANES) != _IN_PLANES or PIL.Image.getmodebands(mode) == 1:
        return bool(tags.get(_INKS) == _OTHER_INKS)
    is_multiplied = _MULTIPLIED in _values(tags.get(_EXTRA, ()))
    return mode not in _BY_PLANES or (is_multiplied and _values(tags.get(_BITS))[0] != 8)


def _opened_by_libtiff(file: IO[bytes], name: str | bytes, page: int = 0) -> TiffImageFile:
    """Pillow's switch is one for the process: a TIFF that is opened meanwhile elsewhere is read by libtiff, too."""
    with _switch:
        before = PIL.TiffImagePlugin.READ_LIBTIFF
        PIL.TiffImagePlugin.READ_LIBTIFF = True
        try:
            file.seek(0)
            image = TiffImageFile(file, name)
            image.seek(page)
            return image
        except SyntaxError:
            if kind := _kind_in(file):
                raise _refused(name, kind) from None
            raise
        finally:
            PIL.TiffImagePlugin.READ_LIBTIFF = before


def _set_raw_mode(image: TiffImageFile) -> None:
    """How Pillow takes what libtiff gives."""
    tile = image.tile[0]
    codec, extents, offset, args = tile
    if codec != "libtiff" or not isinstance(args, tuple):
        return
    raw_mode = _NATIVE.get(args[0], args[0])
    if image.tag_v2.get(_PLANES) == _IN_PLANES and raw_mode == "RGBa":
        # planes are not divided by alpha as they come
        image._mode = raw_mode = "RGBa"
    image.tile = [type(tile)(codec, extents, offset, (raw_mode, *args[1:]))]


def is_reduced(image: PIL.Image.Image) -> bool:
    """Whether a TIFF says that its picture is a small copy of another in the file: that of a camera, mostly."""
    purpose = image.tag_v2.get(_PURPOSE) if isinstance(image, TiffImageFile) else None
    return isinstance(purpose, int) and bool(purpose & _REDUCED)


# --- what is said of others ------------------------------------------------------------------------------------------


def _refused(name: str | bytes, kind: str) -> MediaError:
    return MediaError(
        f"{os.fsdecode(name)}: is a TIFF with {kind}, which is not read here; save the picture as JPEG or PNG"
    )


def _kind_in(file: IO[bytes]) -> str:
    """Of a TIFF that Pillow does not open; "" where that is for damage."""
    try:
        file.seek(0)
        head = file.read(8)
        if head.startswith(_BIG):
            return "offsets of 64 bits, big-endian (BigTIFF)"
        tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(head + (file.read(8) if head[2] == _BIG[3] else b""))
        file.seek(tags.next)
        tags.load(file)
    except _UNREADABLE:
        return ""
    is_whole = _WIDTH in tags and _HEIGHT in tags and (_STRIPS in tags or _TILES in tags)
    numbers = (tags.get(tag, 1) for tag in (_N_SAMPLES, _COLOUR, _COMPRESSION))
    has_sense = all(isinstance(number, int) for number in numbers) and set(_values(tags.get(_BITS, 1))) <= _DEPTHS
    return _kind(tags) if is_whole and has_sense else ""


def _kind(tags: Mapping[int, Any]) -> str:
    """As "RGB pixels of 3 x 32 bits (floating point), in planes, compressed by LZW"."""
    n, bits = tags.get(_N_SAMPLES, 1), _values(tags.get(_BITS, 1))
    colour, formats = tags.get(_COLOUR, 0), _values(tags.get(_FORMAT, 1))
    said = _COLOURS.get(colour, f"unknown ({colour})") if tags.get(_INKS) != _OTHER_INKS else "inks' (not CMYK's)"
    size = f"{n} x {bits[0]}" if n != 1 else f"{bits[0]}"
    if len(set(bits)) > 1:
        size = " + ".join(map(str, bits)) if len(bits) <= _MOST_DEPTHS else f"{n} times several"
    compression = tags.get(_COMPRESSION, _RAW)
    by = _COMPRESSIONS.get(compression, f"a method of its own ({compression})")
    return "".join(
        (
            f"{said} pixels of {size} bits{_FORMATS.get(formats[0], '')}",
            " with alpha" if {1, 2} & set(_values(tags.get(_EXTRA, ()))) else "",
            ", white as zero" if colour == 0 else "",
            ", big-endian" if getattr(tags, "prefix", b"II") == b"MM" else "",
            ", bits reversed" if tags.get(_FILL_ORDER) == _REVERSED else "",
            ", in planes" if tags.get(_PLANES) == _IN_PLANES else "",
            f", compressed by {by}" if by else "",
        )
    )


def _values(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)
