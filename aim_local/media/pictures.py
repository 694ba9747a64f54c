"""Picture files, still or animated, through Pillow.

Knows: formats and frame delays. Leaves to others: orientation (exif.py), colours (colours.py), videos, and which frames
are wanted.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.TiffImagePlugin

from aim_local.errors import MediaError
from aim_local.media.canvas import Canvas
from aim_local.media.colours import depth_warnings, to_rgb
from aim_local.media.exif import turn_of
from aim_local.media.files import is_av1_picture
from aim_local.media.types import Frames, Size, VideoInfo

# formats known by their first bytes; left out: TGA (no signature), EPS (starts a program), MPEG (a video)
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000", "ICO", "QOI")
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
# what Pillow's readers raise at damaged files
_DAMAGE = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, struct.error,
    zlib.error, PIL.Image.DecompressionBombError,
)  # fmt: skip
# as browsers and FFmpeg do: shorter delays mean "not set"
_MIN_DELAY_MS, _DEFAULT_DELAY_MS = 20, 100
# where a PNG may keep an orientation besides its eXIf chunk
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_EXIF_KEYS = (b"Raw profile type exif", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class PictureKind:
    """format: Pillow's name of it; n_frames: pages or frames in the file; animated: they are to be shown in turn.

    stored_size: (height, width) by the file's header, no orientation applied.
    """

    format: str
    n_frames: int
    animated: bool
    stored_size: Size


def picture_kind(path: Path) -> PictureKind | None:
    """What picture the file holds by its content, None for anything else (a video, perhaps)."""
    try:
        image = _identified(path)
    except PIL.Image.DecompressionBombError as e:
        raise MediaError(f"{path}: the picture is too large ({e}); scale it down first") from e
    except PIL.UnidentifiedImageError:
        return None
    except _DAMAGE as e:
        raise MediaError(f"{path}: is a damaged picture ({e}); copy or download it again") from e
    with image:
        name = image.format or ""
        try:
            n_frames = int(getattr(image, "n_frames", 1))
        except _DAMAGE:
            # reading the first frame will tell whether there is anything to save
            n_frames = 1
        return PictureKind(name, n_frames, name in _ANIMATED and n_frames > 1, (image.height, image.width))


def _identified(path: Path) -> PIL.Image.Image:
    try:
        return PIL.Image.open(path, formats=_FORMATS)
    except PIL.UnidentifiedImageError:
        if not is_av1_picture(path):
            raise
    # Pillow asks for one of four major brands; the compatible ones tell as much
    data = path.read_bytes()
    return PIL.Image.open(io.BytesIO(data[:8] + b"avif" + data[12:]), formats=("AVIF",))


def read_picture(path: Path, kind: PictureKind) -> tuple[Frames, tuple[str, ...]]:
    """The (first) picture: uint8 [H, W, 3] RGB, orientation applied, and warnings; MediaError for damage."""
    with _opened(path) as image:
        pixels, warnings = _rgb(path, image)
        return pixels, (*page_warnings(kind), *warnings)


def pixels_of(image: PIL.Image.Image) -> Frames:
    """An open picture as `read_picture` gives one. Raises MediaError."""
    return _rgb(Path(getattr(image, "filename", "") or "a picture"), image)[0]


def picture_size(path: Path) -> Size:
    """(height, width) that `read_picture` gives, from the file's header. Raises MediaError."""
    with _opened(path) as image:
        try:
            width, height = _stored_size(image)
        except _DAMAGE as e:
            raise MediaError(f"{path}: is a damaged picture ({e}); copy or download it again") from e
        return (width, height) if turn_of(image, partial(_exif, path, image)).swaps else (height, width)


def page_warnings(kind: PictureKind) -> tuple[str, ...]:
    """What reading a file as one still picture leaves out."""
    # the second picture in a JPEG (MPO) is a preview or a gain map of the first: nothing is lost
    if kind.n_frames > 1 and kind.format not in ("JPEG", "MPO", "ICO"):
        return (f"the file holds {kind.n_frames} pictures; only the first is used",)
    return ()


def animation_info(path: Path, kind: PictureKind) -> VideoInfo:
    """An animated (or still: one frame) picture as a clip; its frames are stepped through once for their delays."""
    delays: list[int] = []
    with _opened(path) as image:
        first, said = _rgb(path, image)
        mode = image.mode
        for index in range(kind.n_frames):
            try:
                image.seek(index)
                image.load()
            except _DAMAGE:
                break
            delays.append(_delay(image) if kind.animated else 0)
    ends = np.cumsum(delays, dtype=np.float64) / 1000.0
    lost = kind.n_frames - len(delays)
    cut = (f"the animation is damaged: its last {lost} of {kind.n_frames} frames are left out",) if lost else ()
    return VideoInfo(
        source=str(path),
        container=kind.format.lower(),
        codec=kind.format.lower(),
        pixel_format=mode,
        width=first.shape[1],
        height=first.shape[0],
        rotation=0,
        n_frames=len(delays),
        duration=float(ends[-1]),
        fps=len(delays) / float(ends[-1]) if ends[-1] > 0 else 0.0,
        timestamps=ends - np.array(delays) / 1000.0,
        has_audio=False,
        warnings=(*cut, *said),
    )


def draw_onto(canvas: Canvas, path: Path) -> None:
    """Put every frame the canvas misses that can be read."""
    with _opened(path) as image:
        for index in canvas.missing():
            try:
                image.seek(index)
                pixels, _ = _rgb(path, image)
            except (*_DAMAGE, MediaError):
                # the canvas counts and reports what never came
                continue
            canvas.put(index, pixels)


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    try:
        image = _identified(path)
    except _DAMAGE as e:
        raise MediaError(f"{path}: cannot be read as a picture ({e}); copy or download it again") from e
    with image:
        yield image


def _rgb(path: Path, image: PIL.Image.Image) -> tuple[Frames, tuple[str, ...]]:
    """uint8 [H, W, 3] as displayed, and warnings."""
    try:
        image.load()
        turn = turn_of(image, image.getexif)
        pixels = to_rgb(path, image)
        return turn.apply(pixels), (*turn.warnings, *depth_warnings(path, image))
    except _DAMAGE as e:
        raise MediaError(f"{path}: is a damaged picture ({e}); copy or download it again") from e


def _stored_size(image: PIL.Image.Image) -> tuple[int, int]:
    """(width, height) before the EXIF orientation is applied."""
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        # newer versions of Pillow have swapped these in image.size already
        tags = image.tag_v2
        return int(tags[PIL.TiffImagePlugin.IMAGEWIDTH]), int(tags[PIL.TiffImagePlugin.IMAGELENGTH])
    return image.size


def _exif(path: Path, image: PIL.Image.Image) -> PIL.Image.Exif:
    if image.format == "PNG" and not _png_has_late_exif(path):
        # the format's own method decodes the pixels to look for EXIF behind them
        return PIL.Image.Image.getexif(image)
    return image.getexif()


def _png_has_late_exif(path: Path) -> bool:
    """Whether an orientation may stand behind a PNG's pixels."""
    behind = False
    with path.open("rb") as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8:
            n_bytes, name = struct.unpack(">I4s", head)
            behind = behind or name == b"IDAT"
            start = file.tell()
            if behind and (name == b"eXIf" or (name in _PNG_TEXTS and file.read(21).startswith(_PNG_EXIF_KEYS))):
                return True
            file.seek(start + n_bytes + 4)  # a checksum follows the data
    return False


def _delay(image: PIL.Image.Image) -> int:
    delay = image.info.get("duration") or 0
    return round(delay) if delay >= _MIN_DELAY_MS else _DEFAULT_DELAY_MS
