"""Picture files, still or animated, through Pillow.

Knows: formats and frame delays. Leaves to others: orientation (exif.py), colours (colours.py), videos, and which frames
are wanted.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.TiffImagePlugin

from aim_local.config import MAX_PIXELS
from aim_local.errors import MediaBudgetError, MediaError, MediaMemoryError
from aim_local.media.budget import check_frame, check_scans, check_steps
from aim_local.media.canvas import Canvas
from aim_local.media.claims import gif_frames
from aim_local.media.colours import colours_of
from aim_local.media.exif import turn_of
from aim_local.media.files import is_av1_picture
from aim_local.media.foreign import decoding
from aim_local.media.joined import Spliced
from aim_local.media.jpeg_scans import check_head, scans_of
from aim_local.media.png_data import pixels_of_frames
from aim_local.media.png_texts import long_texts
from aim_local.media.qoi import QoiPicture
from aim_local.media.tiff_kinds import is_reduced, open_tiff, set_decoder
from aim_local.media.types import Frames, Size, VideoInfo
from aim_local.media.whole import load_whole, n_whole_frames
from aim_local.native.tiff import silence_libtiff

# formats known by their first bytes; left out: TGA (no signature), EPS (starts a program), MPEG (a video)
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000", "ICO", "QOI")
_OPENERS: dict[str, Callable[[IO[bytes], str | bytes], PIL.ImageFile.ImageFile]] = {
    "TIFF": open_tiff,
    "QOI": QoiPicture,
}
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_NOT_THIS = (SyntaxError, IndexError, TypeError, struct.error)  # of a reader whose format a file is not, as in Pillow
_MOST_PAGES = 1000  # that are counted
_MOST_FRAMES = 200_000  # of a GIF that are counted; more than may be stepped through
_PPM_HEAD, _PPM_COMMENT = 2**16, re.compile(rb"#[^\r\n]*")
_LEAST_FRAME = 38  # bytes of a frame's control chunk in a PNG
# a GIF's frame may lie outside of its picture, for which Pillow makes room; where that is so much, it is damage
_MOST_ROOM, _SMALL_ROOM = 4, 2**22  # times the picture, or pixels
STRIP = 2**20  # pixels that are converted at a time, so that a large picture is in memory once in each form
# as browsers and FFmpeg do: shorter delays mean "not set"
_MIN_DELAY_MS, _DEFAULT_DELAY_MS = 20, 100
# where a PNG may keep an orientation besides its eXIf chunk
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_EXIF_KEYS = (b"Raw profile type exif", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class PictureKind:
    """format: Pillow's name of it; n_frames: pages or frames in the file; animated: they are to be shown in turn.

    stored_size: (height, width) by the file's header, no orientation applied. is_followed: by other pictures that the
    format knows nothing of: a stream of MJPEG. is_coarse: a JPEG whose last scans are not in the file. is_reduced: a
    small copy of another in the file, by what a TIFF says.
    """

    format: str
    n_frames: int
    animated: bool
    stored_size: Size
    is_followed: bool = False
    is_coarse: bool = False
    is_reduced: bool = False


def picture_kind(path: Path, max_pixels: int = MAX_PIXELS) -> PictureKind | None:
    """What picture the file holds by its content, None for anything else (a video, perhaps).

    Raises MediaError for damage, MediaBudgetError for one that takes more than max_pixels allow (budget.py).
    """
    with _opened_if_any(path) as image:
        if image is None:
            return None
        name, size = image.format or "", (image.height, image.width)
        check_frame(path, f"a picture ({name})", *size, max_pixels)
        if name == "GIF":
            _check_gif(path, max_pixels)
        n_frames = max(1, _n_frames(path, image) - _begin(path, image))
        animated = name in _ANIMATED and n_frames > 1
        kind = PictureKind(name, n_frames, animated, size, is_reduced=is_reduced(image))
    if kind.animated:
        check_steps(path, n_frames, *size, max_pixels)
    if name in ("JPEG", "MPO"):
        with decoding(path):
            scans = scans_of(path)
        check_scans(path, scans.n, *size, max_pixels)
        return replace(kind, is_followed=scans.is_followed and name == "JPEG", is_coarse=scans.is_coarse)
    return kind


def _check_gif(path: Path, max_pixels: int) -> None:
    """A frame beyond Pillow's own bound is where Pillow stops: what is before it is used, as with other damage."""
    last = 2 * (PIL.Image.MAX_IMAGE_PIXELS or max_pixels)
    with decoding(path):
        n, size = 0, (1, 1)
        for height, width in itertools.islice(gif_frames(path), _MOST_FRAMES):
            if height * width > last:
                break
            n, size = n + 1, (height, width)
    check_frame(path, "a picture (GIF)", *size, max_pixels)
    check_steps(path, n, *size, max_pixels)


def _n_frames(path: Path, image: PIL.Image.Image) -> int:
    try:
        with decoding(path):
            if image.format == "TIFF":
                return _count_pages(image)
            n = int(getattr(image, "n_frames", 1))
            # a PNG says so in its head, whatever follows
            return min(n, 1 + path.stat().st_size // _LEAST_FRAME) if image.format == "PNG" else n
    except MediaMemoryError:
        raise
    except MediaError:
        # reading the first frame will tell whether there is anything to save
        return 1


def _begin(path: Path, image: PIL.Image.Image) -> int:
    """Pillow's number of the first frame, at which the picture stands then.

    1 for an animated PNG with a picture beside, for programs that know no animation. https://www.w3.org/TR/png-3/#apng
    """
    if not getattr(image, "default_image", False) or any(
        p.are_short for p in itertools.islice(pixels_of_frames(path), 2)
    ):
        return 0
    try:
        with decoding(path):
            image.paste(PIL.Image.new(image.mode, image.size))  # Pillow draws the first frame over it
            image.seek(1)
    except MediaMemoryError:
        raise
    except MediaError:
        image.seek(0)
        return 0
    return 1


def _count_pages(image: PIL.Image.Image) -> int:
    """Up to _MOST_PAGES: a page may be a few bytes, and only the first is read."""
    n = 1
    while n < _MOST_PAGES:
        try:
            image.seek(n)
        except EOFError:
            break
        n += 1
    image.seek(0)
    return n


@contextmanager
def _opened_if_any(path: Path) -> Iterator[PIL.Image.Image | None]:
    """As PIL.Image.open, without its bound on pixels: that is one for the whole program, ours is budget.py."""
    with ExitStack() as stack:
        silence_libtiff()
        with decoding(path):
            PIL.Image.init()
            image = _identified(path, stack)
        yield stack.enter_context(image) if image else None


def _identified(path: Path, stack: ExitStack) -> PIL.Image.Image | None:
    """Lazily read, from a file that stays open as long as `stack`."""
    file: BinaryIO = stack.enter_context(path.open("rb"))
    head = file.read(16)
    for name in _FORMATS:
        make, accepts = PIL.Image.OPEN[name]
        make = _OPENERS.get(name, make)
        if accepts and accepts(head) is not True:
            continue
        if name == "PPM":
            _check_ppm(path, file)
        elif name == "JPEG":
            check_head(path)
        cuts = long_texts(file, path.stat().st_size) if name == "PNG" else ()
        given = stack.enter_context(io.BufferedReader(Spliced(path, cuts))) if cuts else file
        given.seek(0)
        try:
            return make(given, str(path))
        except PIL.Image.DecompressionBombError as e:  # some readers look at that bound by themselves
            most = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)
            told = f"{path}: a picture ({name}) is too large for Pillow, which takes {most:,} pixels of this format"
            raise MediaBudgetError(f"{told} at most: scale it down, or save it as JPEG or PNG") from e
        except _NOT_THIS:
            continue
    if is_av1_picture(path):
        # Pillow asks for one of four major brands; the compatible ones tell as much
        data = path.read_bytes()
        return PIL.Image.OPEN["AVIF"][0](io.BytesIO(data[:8] + b"avif" + data[12:]), str(path))
    return None


def _check_ppm(path: Path, file: BinaryIO) -> None:
    """Pillow goes through a comment byte by byte, however long it is. Raises MediaError."""
    file.seek(0)
    head = file.read(_PPM_HEAD)
    if len(head) == _PPM_HEAD and len(_PPM_COMMENT.sub(b" ", head).split(None, 3)) < 4:
        raise MediaError(f"{path}: has no size in its first {_PPM_HEAD:,} bytes (PPM); save it again without comments")


def read_picture(path: Path, kind: PictureKind) -> tuple[Frames, tuple[str, ...]]:
    """The (first) picture: uint8 [H, W, 3] RGB, orientation applied, and warnings; MediaError for damage."""
    with _opened(path) as image:
        if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
            with decoding(path):
                # Pillow makes this room itself, but within its own bound alone
                image.im = PIL.Image.new(image.mode, _stored_size(image), None).im
        damage = load_whole(path, image)
        _begin(path, image)
        pixels, warnings = _rgb(path, image)
        return pixels, (*page_warnings(kind), *damage, *warnings)


def pixels_of(image: PIL.Image.Image) -> Frames:
    """An open picture as `read_picture` gives one. Raises MediaError."""
    path = Path(getattr(image, "filename", "") or "a picture")
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        with decoding(path):
            image = set_decoder(image, str(path))
    return _rgb(path, image)[0]


def picture_size(path: Path) -> Size:
    """(height, width) that `read_picture` gives, from the file's header. Raises MediaError."""
    with _opened(path) as image:
        with decoding(path):
            width, height = _stored_size(image)
            swaps = turn_of(partial(_exif, path, image)).swaps
        return (width, height) if swaps else (height, width)


def page_warnings(kind: PictureKind) -> tuple[str, ...]:
    """What reading a file as one still picture leaves out, and what the file does."""
    notes = list[str]()
    # the second picture in a JPEG (MPO) is a preview or a gain map of the first: nothing is lost
    if kind.n_frames > 1 and kind.format not in ("JPEG", "MPO", "ICO"):
        many = " or more" if kind.n_frames == _MOST_PAGES else ""
        notes.append(f"the file holds {kind.n_frames}{many} pictures; only the first is used")
    if kind.is_followed:
        notes.append("other JPEGs follow in the file (a stream of MJPEG?); only the first is used: make an AVI of it")
    if kind.is_coarse:
        notes.append("the JPEG ends before its last scans: fine detail or colour is missing (cut off, or a preview?)")
    if kind.is_reduced:
        notes.append(
            "the first picture in the file is a small copy of another (a camera's raw file?): export it as JPEG"
        )
    return tuple(notes)


def animation_info(path: Path, kind: PictureKind) -> VideoInfo:
    """An animated (or still: one frame) picture as a clip; its frames are stepped through once for their delays."""
    delays: list[int] = []
    with _opened(path) as image:
        damage = load_whole(path, image)
        begin = _begin(path, image)
        first, said = _rgb(path, image)
        n_frames = kind.n_frames if kind.animated else 1  # pages, and what a camera puts beside, are no frames
        end = begin + n_frames
        n_whole = n_whole_frames(path, end) if kind.format == "PNG" else end
        mode, room = image.mode, max(_MOST_ROOM * image.width * image.height, _SMALL_ROOM)
        for index in range(begin, n_whole):
            try:
                with decoding(path):
                    image.seek(index)
                    if image.width * image.height > room:
                        break
                    image.load()
            except MediaMemoryError:
                raise
            except MediaError:
                break
            delays.append(_delay(image) if kind.animated else 0)
    ends = np.cumsum(delays, dtype=np.float64) / 1000.0
    lost = n_frames - len(delays)
    cut = (f"the animation is damaged: its last {lost} of {n_frames} frames are left out",) if lost else ()
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
        warnings=(*cut, *(() if kind.animated else page_warnings(kind)), *damage, *said),
    )


def draw_onto(canvas: Canvas, path: Path) -> None:
    """Put every frame the canvas misses that can be read, each as large as the first: a GIF's may reach further."""
    with _opened(path) as image:
        size, begin = image.size, _begin(path, image)
        for index in canvas.missing():
            try:
                with decoding(path):
                    image.seek(begin + index)
                pixels, _ = _rgb(path, image, size)
            except MediaMemoryError:
                raise
            except MediaError:
                # the canvas counts and reports what never came
                continue
            canvas.put(index, pixels)


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    with _opened_if_any(path) as image:
        if image is None:
            raise MediaError(f"{path}: cannot be read as a picture any more; copy or download it again")
        yield image


def _rgb(path: Path, image: PIL.Image.Image, size: tuple[int, int] | None = None) -> tuple[Frames, tuple[str, ...]]:
    """uint8 [H, W, 3], orientation applied, and warnings. size: (width, height) that is taken, from the upper left."""
    with decoding(path):
        image.load()
        turn, colours = turn_of(image.getexif), colours_of(path, image)
        said = (*turn.warnings, *colours.warnings)
        width, height = size or image.size
        n_rows = max(1, STRIP // max(1, width))
        if n_rows >= height and (width, height) == image.size:
            return np.ascontiguousarray(turn.displayed(colours.to_rgb(image))), said
        found = np.empty((width, height, 3) if turn.swaps else (height, width, 3), np.uint8)
        stored = turn.stored(found)
        for top in range(0, height, n_rows):
            strip = image.crop((0, top, width, min(height, top + n_rows)))
            stored[top : top + n_rows] = colours.to_rgb(strip)
        return found, said


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
