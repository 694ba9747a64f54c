"""Pixels given as an array instead of a file.

Knows: which arrays are a video and which an image. Leaves to others: files.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from aim_local.errors import UsageError
from aim_local.media.canvas import Canvas, Keep, OnFrame
from aim_local.media.colours import on_white
from aim_local.media.files import digest_array
from aim_local.media.types import Frames, FrameSampling, Image, Video

Kind = Literal["auto", "video", "image"]

ARRAY_SHAPES = "a video is uint8 [T, H, W, 3] in RGB, an image uint8 [H, W, 3]; or 4 channels, RGBA"


def as_frames(array: NDArray[Any], sampling: FrameSampling, kind: Kind) -> Frames:
    """The array as a video uint8 [T, H, W, 3] or an image uint8 [H, W, 3], as `kind` asks. Raises UsageError.

    Of 4 channels the last is alpha: what is transparent becomes white.
    """
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] not in (3, 4) or array.size == 0:
        raise UsageError(f"media is an array {array.dtype} {list(array.shape)}; {ARRAY_SHAPES}, none of them empty")
    if array.shape[-1] == 4:
        array = opaque(array)
    if array.ndim == 3 and kind != "video":
        return array
    if kind == "image":
        raise UsageError(f"media is an array {list(array.shape)}, a video; an image is uint8 [H, W, 3]")
    check_whole(sampling)
    return array if array.ndim == 4 else array[None]


def opaque(array: NDArray[np.uint8]) -> Frames:
    """uint8 [..., H, W, 4] RGBA -> uint8 [..., H, W, 3] over white."""
    pictures = np.ascontiguousarray(array).reshape(-1, *array.shape[-3:])
    found = np.stack([on_white(PIL.Image.fromarray(picture)) for picture in pictures])
    return found.reshape(*array.shape[:-1], 3)


def check_whole(sampling: FrameSampling) -> None:
    """Raises UsageError for what cannot be asked of frames without times."""
    if sampling.fps is not None or sampling.start is not None or sampling.end is not None:
        raise UsageError("fps, start and end need a file; given frames are used as they are: drop these options")


def media_of_array(
    array: NDArray[Any], sampling: FrameSampling, kind: Kind, keep: Keep, on_frame: OnFrame | None = None
) -> Video | Image:
    """As `open_media` of an array. Raises MediaError, UsageError."""
    frames = as_frames(array, sampling, kind)
    digest = digest_array(frames)
    if frames.ndim == 3:
        return Image(pixels=frames, source="array", warnings=(), digest=digest)
    n_frames, height, width, _ = frames.shape
    return Video(
        frames=frames if keep.is_whole and not on_frame else _kept(frames, keep, on_frame),
        timestamps=np.full(n_frames, np.nan),
        indices=np.arange(n_frames, dtype=np.int64),
        source="array",
        duration=float("nan"),
        n_source_frames=n_frames,
        source_fps=float("nan"),
        warnings=(),
        digest=digest,
        source_size=(height, width),
    )


def _kept(frames: Frames, keep: Keep, on_frame: OnFrame | None) -> Frames:
    """uint8 [T, h, w, 3] -> uint8 [T, H, W, 3]."""
    n_frames, height, width, _ = frames.shape
    canvas = Canvas("array", (height, width), np.arange(n_frames, dtype=np.int64), keep, None, on_frame)
    for index, frame in enumerate(frames):
        canvas.put(index, frame)
    return canvas.finish()[0]
