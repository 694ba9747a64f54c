"""Media as Python programs hold them: Pillow's pictures, lists of frames, iterators of frames, as arrays.

Knows: what a media item may be, and what becomes an array. Leaves to others: which arrays are a video (arrays.py), and
files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from aim_local.errors import UsageError
from aim_local.media.arrays import check_whole
from aim_local.media.pictures import pixels_of
from aim_local.media.types import DEFAULT_SAMPLING, Frames, FrameSampling
from aim_local.paths import Name, path_of

Frame = NDArray[Any] | PIL.Image.Image
Given = Name | Frame | Sequence[Frame] | Iterator[Frame]
MediaItem = str | os.PathLike[str] | NDArray[Any]

ALLOWED = (
    "a path, a picture (Pillow's, or uint8 [H, W, 3] in RGB), or a video (uint8 [T, H, W, 3], or a list or iterator of "
    "such pictures)"
)


class Taken(NamedTuple):
    """warnings: what was left of an iterator."""

    item: MediaItem
    warnings: tuple[str, ...] = ()


def take(item: Given, sampling: FrameSampling = DEFAULT_SAMPLING) -> Taken:
    """A path as it is; anything else as an array, uint8 [H, W, 3] or [T, H, W, 3] (other arrays are told later).

    An iterator is read once, and no further than sampling.n_frames. Raises UsageError.
    """
    if isinstance(item, np.ndarray):
        return Taken(item)
    if isinstance(item, str | bytes | os.PathLike):
        return Taken(path_of(item, "media"))
    if isinstance(item, PIL.Image.Image):
        return Taken(pixels_of(item))
    if isinstance(item, Sequence) and not isinstance(item, str | bytes | bytearray | memoryview):
        return Taken(_joined(item))
    if isinstance(item, Iterator):
        check_whole(sampling)
        return _from_iterator(item, sampling.n_frames)
    raise UsageError(f"media is {type(item).__name__}; give {ALLOWED}")


def _from_iterator(frames: Iterator[Frame], most: int | None) -> Taken:
    taken = list[Frame]()
    for frame in frames:
        taken.append(frame)
        if len(taken) == most:
            said = f"an iterator gave {most} frames, as many as n_frames asks for: what it has beyond was not read"
            return Taken(_joined(taken), (said,))
    return Taken(_joined(taken))


def _joined(frames: Sequence[Frame]) -> Frames:
    """uint8 [T, H, W, 3]. Raises UsageError for what is no frame, and for frames of several sizes."""
    if not frames:
        raise UsageError("media is a clip without frames; give at least one picture in it")
    pictures = [_picture(frame, number) for number, frame in enumerate(frames)]
    first = pictures[0].shape
    for number, picture in enumerate(pictures):
        if picture.shape != first:
            raise UsageError(
                f"frame {number} of a clip is {_size(picture)} and frame 0 is {_size(pictures[0])}; frames of a clip "
                "have one size: resize them, or give the pictures one by one, outside a list"
            )
    return np.stack(pictures)


def _picture(frame: object, number: int) -> Frames:
    if isinstance(frame, PIL.Image.Image):
        return pixels_of(frame)
    if not isinstance(frame, np.ndarray):
        what = f"{type(frame).__name__}"
    elif frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        what = f"an array {frame.dtype} {list(frame.shape)}"
    else:
        return frame
    raise UsageError(f"frame {number} of a clip is {what}; a frame is uint8 [H, W, 3] in RGB, or a picture of Pillow's")


def _size(picture: Frames) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
