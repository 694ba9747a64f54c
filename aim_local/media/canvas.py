"""Where sampled frames are put, in display order, as they come out of a decoder.

Knows: sizes, resizing, memory, progress, frames that never came. Leaves to others: decoding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import PIL.Image

from aim_local.errors import MediaError, UsageError
from aim_local.media.types import Frames, Indices, VideoInfo

Progress = Callable[[int, int], None]
Size = tuple[int, int]  # height, width

# more than that in one array is a wish for a smaller request, not for swapping
MAX_FRAME_BYTES = 4 * 2**30


class Canvas:
    """uint8 [T, H, W, 3] that fills up: one row per wanted frame, at the clip's size or `resize` = (height, width).

    Raises MediaError where the array would exceed MAX_FRAME_BYTES (before decoding), UsageError for a bad resize.
    """

    def __init__(self, info: VideoInfo, indices: Indices, resize: Size | None, progress: Progress | None) -> None:
        self._size = check_size(resize) if resize is not None else (info.height, info.width)
        _check_memory(info, len(indices), self._size)
        self._source = info.source
        self._stored_size = (info.height, info.width)
        self._row = {int(index): row for row, index in enumerate(indices)}
        self._frames = np.zeros((len(indices), *self._size, 3), dtype=np.uint8)
        self._found = np.zeros(len(indices), dtype=bool)
        self._n_other_size = 0
        self._progress = progress

    def put(self, index: int, pixels: Frames) -> None:
        """Keep frame `index`, uint8 [h, w, 3]; another size than the canvas' is resampled (bicubic)."""
        row = self._row[index]
        self._n_other_size += pixels.shape[:2] != self._stored_size
        self._frames[row] = resize_rgb(pixels, self._size)
        self._found[row] = True
        if self._progress:
            self._progress(int(self._found.sum()), len(self._found))

    def missing(self) -> list[int]:
        """Display indices still to come, ascending."""
        return [index for index, row in self._row.items() if not self._found[row]]

    def finish(self) -> tuple[Frames, np.ndarray[tuple[int], np.dtype[np.bool_]], list[str]]:
        """The frames that came, bool [T] which of the wanted ones they are, warnings; MediaError where none came."""
        n_wanted, n_found = len(self._found), int(self._found.sum())
        if n_found == 0:
            raise MediaError(
                f"{self._source}: none of the {n_wanted} chosen frames could be decoded; the file is damaged:"
                " choose another range, or copy or download it again"
            )
        warnings = []
        if n_found < n_wanted:
            warnings.append(f"{n_wanted - n_found} of {n_wanted} frames could not be decoded and were skipped")
            if self._progress:
                self._progress(n_wanted, n_wanted)
        if self._n_other_size:
            warnings.append(f"{self._n_other_size} of {n_wanted} frames are not of the first frame's size: resampled")
        frames = self._frames if n_found == n_wanted else self._frames[self._found]
        return frames, self._found, warnings


def resize_rgb(pixels: Frames, size: Size) -> Frames:
    """uint8 [h, w, 3] -> uint8 [H, W, 3], Pillow's bicubic as in transformers' processors; same size: untouched."""
    if pixels.shape[:2] == size:
        return pixels
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[1], size[0]), PIL.Image.Resampling.BICUBIC))


def check_size(resize: object) -> Size:
    """`resize` as (height, width); UsageError for anything but two whole numbers of 1 or more."""
    if isinstance(resize, tuple) and len(resize) == 2 and all(type(v) is int and v >= 1 for v in resize):
        return (resize[0], resize[1])
    raise UsageError(f"resize is {resize!r}; it must be (height, width) in pixels, two whole numbers of 1 or more")


def _check_memory(info: VideoInfo, n_frames: int, size: Size) -> None:
    n_bytes = n_frames * size[0] * size[1] * 3
    if n_bytes > MAX_FRAME_BYTES:
        raise MediaError(
            f"{info.source}: {n_frames} frames of {size[1]} x {size[0]} need {n_bytes / 2**30:.1f} GiB, at most"
            f" {MAX_FRAME_BYTES / 2**30:g} GiB are allowed; ask for fewer frames, a lower fps or a shorter range"
        )
