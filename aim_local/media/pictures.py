"""Picture files, still or animated, through Pillow.

Knows: formats, EXIF orientation, colour modes, frame delays. Leaves to others: videos, and which frames are wanted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from aim_local.errors import MediaError
from aim_local.media.canvas import Canvas
from aim_local.media.types import Frames, VideoInfo

# formats known by their first bytes; left out: TGA (no signature), EPS (starts a program), MPEG (a video)
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000", "ICO", "QOI")
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
_DAMAGE = (OSError, EOFError, SyntaxError, ValueError, IndexError, OverflowError, struct.error, zlib.error)
# as browsers and FFmpeg do: shorter delays mean "not set"
_MIN_DELAY_MS, _DEFAULT_DELAY_MS = 20, 100


@dataclass(frozen=True)
class PictureKind:
    """format: Pillow's name of it; n_frames: pages or frames in the file; animated: they are to be shown in turn."""

    format: str
    n_frames: int
    animated: bool


def picture_kind(path: Path) -> PictureKind | None:
    """What picture the file holds by its content, None for anything else (a video, perhaps)."""
    try:
        image = PIL.Image.open(path, formats=_FORMATS)
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
        return PictureKind(name, n_frames, name in _ANIMATED and n_frames > 1)


def read_picture(path: Path, kind: PictureKind) -> tuple[Frames, tuple[str, ...]]:
    """The (first) picture: uint8 [H, W, 3] RGB, orientation applied, and warnings; MediaError for damage."""
    with _opened(path) as image:
        pixels = _rgb(path, image)
    # the second picture in a JPEG (MPO) is a preview or a gain map of the first: nothing is lost
    if kind.n_frames > 1 and kind.format not in ("JPEG", "MPO", "ICO"):
        return pixels, (f"the file holds {kind.n_frames} pictures; only the first is used",)
    return pixels, ()


def animation_info(path: Path, kind: PictureKind) -> VideoInfo:
    """An animated (or still: one frame) picture as a clip; its frames are stepped through once for their delays."""
    delays: list[int] = []
    with _opened(path) as image:
        first = _rgb(path, image)
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
        warnings=(f"the animation is damaged: its last {lost} of {kind.n_frames} frames are left out",) if lost else (),
    )


def draw_onto(canvas: Canvas, path: Path) -> None:
    """Put every frame the canvas misses that can be read."""
    with _opened(path) as image:
        for index in canvas.missing():
            try:
                image.seek(index)
                pixels = _rgb(path, image)
            except (*_DAMAGE, MediaError):
                # the canvas counts and reports what never came
                continue
            canvas.put(index, pixels)


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    try:
        image = PIL.Image.open(path, formats=_FORMATS)
    except (*_DAMAGE, PIL.Image.DecompressionBombError) as e:
        raise MediaError(f"{path}: cannot be read as a picture ({e}); copy or download it again") from e
    with image:
        yield image


def _rgb(path: Path, image: PIL.Image.Image) -> Frames:
    try:
        image.load()
        turned = PIL.ImageOps.exif_transpose(image)
        return _to_rgb(path, turned)
    except _DAMAGE as e:
        raise MediaError(f"{path}: is a damaged picture ({e}); copy or download it again") from e


def _to_rgb(path: Path, image: PIL.Image.Image) -> Frames:
    if image.mode.startswith("I"):
        return _high_byte(path, np.asarray(image))
    if image.mode == "F":
        raise MediaError(f"{path}: has floating-point pixels; save it with 8 or 16 bits per channel")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        # the same colours; straight to RGB Pillow complains about the alpha values it drops
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _high_byte(path: Path, grey: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Frames:
    # pillow's convert("RGB") saturates 16-bit grey to white above 255
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise MediaError(f"{path}: has 32-bit grey values; save it with 8 or 16 bits per channel")
    return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)


def _delay(image: PIL.Image.Image) -> int:
    delay = image.info.get("duration") or 0
    return round(delay) if delay >= _MIN_DELAY_MS else _DEFAULT_DELAY_MS
