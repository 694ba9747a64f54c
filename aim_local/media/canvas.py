"""Where sampled frames are put, in display order, as they come out of a decoder.

Knows: sizes, resizing, memory, progress, frames that never came. Leaves to others: decoding, and what a fit makes of
a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image

from aim_local.errors import MediaError, UsageError
from aim_local.media.types import Frames, Indices, Size
from aim_local.native.room import check_room

Progress = Callable[[int, int], None]
OnFrame = Callable[[int, Frames], None]  # (place among the wanted frames, what is kept of the frame)
Fit = Callable[[Frames], Frames]  # one frame uint8 [h, w, 3] -> what is kept of it, uint8 [H, W, 3]

# more than that in one array is a wish for a smaller request, not for swapping
MAX_FRAME_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Keep:
    """What is kept of a decoded frame: all of it, `resize` = (height, width) of it, or what `fit` makes of it.

    Raises UsageError for a bad resize, and for resize and fit together.
    """

    resize: Size | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        if self.resize is not None and self.fit is not None:
            raise UsageError("resize and fit were both given; either sets the size of the frames: drop one of them")
        if self.resize is not None:
            _check_size(self.resize)

    @property
    def is_whole(self) -> bool:
        """The frames stay as they are."""
        return self.resize is None and self.fit is None


class Canvas:
    """uint8 [T, H, W, 3] that fills up: one row per wanted frame of a clip with frames of `size` = (height, width).

    Raises MediaError where the array would exceed MAX_FRAME_BYTES: before decoding, or with a fit at the first frame,
    which shows what size is kept.
    """

    def __init__(
        self,
        source: str,
        size: Size,
        indices: Indices,
        keep: Keep,
        progress: Progress | None,
        on_frame: OnFrame | None = None,
    ) -> None:
        self.source, self._clip_size, self._fit = source, size, keep.fit
        self._row = {int(index): row for row, index in enumerate(indices)}
        self._found = np.zeros(len(indices), dtype=bool)
        self._n_other_size = 0
        self._progress, self._on_frame = progress, on_frame
        self._frames = None if keep.fit else self._room(keep.resize or size)

    def put(self, index: int, pixels: Frames) -> None:
        """Keep frame `index`, uint8 [h, w, 3]; one of another size than the clip's is resampled (bicubic)."""
        row = self._row[index]
        self._n_other_size += pixels.shape[:2] != self._clip_size
        kept = self._fitted(pixels)
        if self._frames is None:
            self._frames = self._room(kept.shape[:2])
        self._frames[row] = resize_rgb(kept, self._frames.shape[1:3])
        self._found[row] = True
        if self._on_frame:
            self._on_frame(row, self._frames[row])
        if self._progress:
            self._progress(int(self._found.sum()), len(self._found))

    def missing(self) -> list[int]:
        """Display indices still to come, ascending."""
        return [index for index, row in self._row.items() if not self._found[row]]

    def finish(self) -> tuple[Frames, np.ndarray[tuple[int], np.dtype[np.bool_]], list[str]]:
        """The frames that came, bool [T] which of the wanted ones they are, warnings; MediaError where none came."""
        n_wanted, n_found = len(self._found), int(self._found.sum())
        if n_found == 0 or self._frames is None:
            check_room()  # a decoder that gets no memory calls its frames damaged
            raise MediaError(
                f"{self.source}: none of the {n_wanted} chosen frames could be decoded; the file is damaged:"
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

    def _fitted(self, pixels: Frames) -> Frames:
        """What is kept of a frame: uint8 [h, w, 3] -> uint8 [H, W, 3]."""
        if self._fit is None:
            return pixels
        # a turned frame is a view with strides that not every library takes
        kept = self._fit(np.ascontiguousarray(resize_rgb(pixels, self._clip_size)))
        if kept.dtype != np.uint8 or kept.ndim != 3 or kept.shape[2] != 3 or kept.size == 0:
            raise UsageError(f"fit gave an array {kept.dtype} {list(kept.shape)}; it must give uint8 [H, W, 3]")
        if self._frames is not None and kept.shape != self._frames.shape[1:]:
            sizes = f"{_named(kept.shape[:2])} after one of {_named(self._frames.shape[1:3])}"
            raise UsageError(f"fit gave a frame of {sizes}; it must give one size for all frames of a clip")
        return kept

    def _room(self, size: Size) -> Frames:
        n_frames = len(self._found)
        n_bytes = n_frames * size[0] * size[1] * 3
        if n_bytes > MAX_FRAME_BYTES:
            most = MAX_FRAME_BYTES // (n_bytes // n_frames)
            raise MediaError(
                f"{self.source}: {n_frames} frames of {_named(size)} need {n_bytes / 2**30:.1f} GiB, at most"
                f" {MAX_FRAME_BYTES / 2**30:g} GiB are allowed; "
                + (f"use n_frames={most} or fewer, or a smaller clip" if most else "scale it down first")
            )
        return np.zeros((n_frames, *size, 3), dtype=np.uint8)


def resize_rgb(pixels: Frames, size: Size, resample: int = PIL.Image.Resampling.BICUBIC) -> Frames:
    """uint8 [h, w, 3] -> uint8 [H, W, 3], Pillow's filters as in transformers' processors; same size: untouched."""
    if pixels.shape[:2] == size:
        return pixels
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[1], size[0]), PIL.Image.Resampling(resample)))


def _named(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _check_size(resize: object) -> None:
    if not (isinstance(resize, tuple) and len(resize) == 2 and all(type(v) is int and v >= 1 for v in resize)):
        raise UsageError(f"resize is {resize!r}; it must be (height, width) in pixels, two whole numbers of 1 or more")
