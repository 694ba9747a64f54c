"""Whether all pixels of a picture are in its file, where its decoder fills in what is missing and does not tell.

Knows which formats that concerns, and Pillow's pictures. Leaves to others: what the formats look like inside.
"""

from __future__ import annotations

import io
import mmap
from pathlib import Path

import PIL.IcoImagePlugin
import PIL.Image
import PIL.JpegImagePlugin

from aim_local.errors import MediaError
from aim_local.media.ends import n_missing_bytes
from aim_local.media.files import brands
from aim_local.media.foreign import decoding
from aim_local.media.jpeg_damage import is_damaged_inside
from aim_local.media.jpeg_data import lacks_restarts, with_more
from aim_local.media.jpeg_scans import segments
from aim_local.media.png_data import SIGNATURE, pixels_of_frames

_DAMAGED = "the JPEG is damaged inside: parts of it may show wrong colours; copy or download it again"
_HEAD = 4096  # bytes in which a file of boxes names its brands


def load_whole(path: Path, image: PIL.Image.Image) -> tuple[str, ...]:
    """Decodes a picture that was opened from this file. Raises MediaError where pixels are missing, and for damage.

    Gives warnings of damage in spite of which all pixels are there.
    """
    put: list[int] | None = None
    warnings: tuple[str, ...] = ()
    with decoding(path):
        if image.format == "PNG":
            _check_png(path)
        elif isinstance(image, PIL.IcoImagePlugin.IcoImageFile):
            _check_icon(path, image)
        elif image.format == "AVIF":
            _check_sequence(path)
        elif image.format in ("JPEG", "MPO"):
            put, warnings = _looked_through(path)
        image.load()
        if put is not None and put != image.histogram():
            raise _short(path)
    return warnings


def n_whole_frames(path: Path, n_frames: int) -> int:
    """How many frames of an animated PNG come before one whose pixels end early, of those there are."""
    return next((i for i, pixels in enumerate(pixels_of_frames(path)) if pixels.are_short), n_frames)


def _check_png(path: Path, begin: int = 0) -> None:
    first = next(pixels_of_frames(path, begin), None)
    if first and first.are_short:
        raise _short(path, f": {first.n_there:,} of {first.n_whole:,} bytes are there")


def _check_icon(path: Path, image: PIL.IcoImagePlugin.IcoImageFile) -> None:
    begin = image.ico.entry[image.ico.getentryindex(image.size)].offset
    with path.open("rb") as file:
        file.seek(begin)
        is_png = file.read(len(SIGNATURE)) == SIGNATURE
    if is_png:
        _check_png(path, begin)


def _check_sequence(path: Path) -> None:
    """Of a sequence of pictures that is cut off, libavif gives the first one as a still picture."""
    with path.open("rb") as file:
        major, others = brands(file.read(_HEAD))
    n = n_missing_bytes(path, ("mov",)) if b"avis" in (major, *others) else 0
    if n:
        raise _short(path, f": the last {n:,} bytes are missing")


def _looked_through(path: Path) -> tuple[list[int] | None, tuple[str, ...]]:
    """Of a JPEG: how often its pixels have each value if all are there, None where that cannot be told; warnings."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parts = tuple(segments(data))
        if lacks_restarts(parts):
            raise _short(path)
        more, warnings = with_more(data, parts), (_DAMAGED,) if is_damaged_inside(data, parts) else ()
    if more is None:
        return None, warnings
    with PIL.JpegImagePlugin.JpegImageFile(io.BytesIO(more)) as image:
        image.load()
        return image.histogram(), warnings


def _short(path: Path, how: str = "") -> MediaError:
    return MediaError(f"{path}: is a damaged picture (its pixels end early{how}); copy or download it again")
