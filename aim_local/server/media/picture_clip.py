"""Pictures that make one clip: all of one size, uint8 [T, H, W, 3], with times where their rate is known.

The first picture's size, as displayed, is the clip's. Another picture is scaled as a whole until it fits into that
(Pillow's bicubic), and lies in its middle; what is left free is black. So none is stretched, and nothing is cut off.

Without a rate the clip is an array, whose frames have no times. With one it is a film: uncompressed RGB in QuickTime's
container, which holds exact times and the very pixels, and of which the media layer reads one frame after the other.
Either lies on the disk, so that requests that wait for their turn cost no memory.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ...config import MAX_PIXELS
from ...media import read_image
from ...media.canvas import resize_rgb
from ...media.pictures import picture_size

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # height, width
_TICKS = 90_000  # a second, as in most films
_LARGE = 2**23  # pixels of a picture that takes its turn: each takes up to seven bytes while it is read
_STEP_S = 0.1
_turn = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A still picture whose head was checked."""

    path: Path
    name: str
    digest: str
    max_pixels: int = MAX_PIXELS


def n_clip_bytes(pictures: Sequence[Picture]) -> int:
    """Of the clip's pixels. Raises MediaError."""
    height, width = picture_size(pictures[0].path)
    return len(pictures) * height * width * 3


def size_warnings(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """What is done to pictures of another size than the first. Raises MediaError."""
    first = picture_size(pictures[0].path)
    n_others = sum(picture_size(picture.path) != first for picture in pictures[1:])
    if not n_others:
        return ()
    size = f"{first[1]} x {first[0]}"
    return (f"{n_others} of {len(pictures)} pictures are not of the first one's size: fitted into {size}",)


def clip_array(pictures: Sequence[Picture], folder: Path, check: Callable[[], None]) -> Pixels:
    """uint8 [T, H, W, 3], in a file of `folder` that has no name. Raises MediaError, OSError."""
    shape = (len(pictures), *picture_size(pictures[0].path), 3)
    with tempfile.TemporaryFile(dir=folder) as file, contextlib.closing(_fitted(pictures, check)) as fitted:
        for pixels in fitted:
            # mapped once it is whole: a full disk is an error here, a crash there
            file.write(np.ascontiguousarray(pixels).data)
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=shape)


def clip_film(pictures: Sequence[Picture], fps: float, path: Path, check: Callable[[], None]) -> Path:
    """A film at `path`, its frame i shown at i / fps seconds. Raises MediaError, OSError."""
    try:
        _write_film(pictures, fps, path, check)
    except av.FFmpegError as e:
        raise OSError(e.errno, e.strerror) from e
    return path


def _write_film(pictures: Sequence[Picture], fps: float, path: Path, check: Callable[[], None]) -> None:
    height, width = picture_size(pictures[0].path)
    with contextlib.closing(_fitted(pictures, check)) as fitted, av.open(str(path), "w", format="mov") as film:
        stream = film.add_stream("rawvideo", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width, stream.pix_fmt = height, width, "rgb24"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        for i, pixels in enumerate(fitted):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(i * _TICKS / fps), Fraction(1, _TICKS)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


def _fitted(pictures: Sequence[Picture], check: Callable[[], None]) -> Generator[Pixels]:
    """Close it: it may hold up others."""
    size = picture_size(pictures[0].path)
    for picture in pictures:
        height, width = picture_size(picture.path)
        with _one_at_a_time(check) if max(height * width, size[0] * size[1]) > _LARGE else contextlib.nullcontext():
            check()
            yield fit_into(read_image(picture.path, picture.digest, picture.max_pixels).pixels, size)


@contextlib.contextmanager
def _one_at_a_time(check: Callable[[], None]) -> Iterator[None]:
    """Of all requests: a dozen at once would take a dozen times the memory that one may. check: raises to stop."""
    while not _turn.acquire(timeout=_STEP_S):
        check()
    try:
        yield
    finally:
        _turn.release()


def fit_into(pixels: Pixels, size: Size) -> Pixels:
    """uint8 [h, w, 3] -> uint8 [H, W, 3]: scaled as a whole, in the middle, black around it."""
    (h, w), (height, width) = pixels.shape[:2], size
    if (h, w) == size:
        return pixels
    scale = min(height / h, width / w)
    inner = (min(height, max(1, round(h * scale))), min(width, max(1, round(w * scale))))
    fitted = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    fitted[top : top + inner[0], left : left + inner[1]] = resize_rgb(pixels, inner)
    return fitted
