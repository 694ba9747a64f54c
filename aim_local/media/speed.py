"""How fast an item is read on this machine: timed on the first frames of the very file.

Knows clocks and the reader's own steps. What is done with the times is for others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from aim_local.config import MAX_PIXELS
from aim_local.media.arrays import as_frames
from aim_local.media.canvas import Canvas, Fit, Keep
from aim_local.media.given import MediaItem
from aim_local.media.outline import Indexed, Outline, index_media
from aim_local.media.reader import digest_item, fill, read_image
from aim_local.media.seek import SEEK_COST
from aim_local.media.shape import MediaShape
from aim_local.media.types import DEFAULT_SAMPLING

_DENSE, _SPAN = 4, 33  # frames that are all kept; frames of which the first, the middle and the last are kept


@dataclass(frozen=True)
class ReadingSpeed:
    """Seconds.

    open_s:    until the item is known: its head, its packets, its digest; of a still picture its pixels as well
    digest_s:  of these, the digest
    start_s:   until the decoder is ready for the first frame
    decoded_s: a frame that is decoded on the way to a kept one
    kept_s:    a frame that is kept: converted, and fitted to the tower
    """

    digest: str
    open_s: float
    digest_s: float
    start_s: float = 0.0
    decoded_s: float = 0.0
    kept_s: float = 0.0

    def decode(self, outline: Outline) -> float:
        """Seconds of decoding what an outline of the item says, without opening and without what is kept."""
        n = outline.n_decoded - outline.n_counted + SEEK_COST * outline.n_jumps
        return self.start_s + n * self.decoded_s

    def keep(self, outline: Outline) -> float:
        """Seconds of converting and fitting the frames that are kept."""
        return outline.n_pictures * self.kept_s


def measure_reading(
    item: MediaItem, fit_for: Callable[[MediaShape], Fit | None], max_pixels: int = MAX_PIXELS
) -> tuple[Indexed, ReadingSpeed]:
    """Opens an item and decodes the first frames of a video: 38 at most. Raises MediaError, UsageError."""
    PIL.Image.init()  # once in a process, and no part of any run
    start = time.perf_counter()
    indexed = index_media(item, max_pixels)
    before = time.perf_counter()
    digest = digest_item(item)
    digest_s = time.perf_counter() - before
    if isinstance(item, np.ndarray):
        opened = time.perf_counter() - start
        return indexed, ReadingSpeed(
            digest, opened, digest_s, kept_s=_fit_seconds(item, fit_for(indexed.outline(DEFAULT_SAMPLING).shape))
        )
    if indexed.info is None:
        read_image(item, digest, max_pixels)
        return indexed, ReadingSpeed(digest, time.perf_counter() - start, digest_s)
    opened = time.perf_counter() - start
    n, fit = indexed.info.n_frames, fit_for(indexed.outline(DEFAULT_SAMPLING).shape)
    first = _read_seconds(indexed, [0], fit)
    if n < _DENSE:
        return indexed, ReadingSpeed(digest, opened, digest_s, kept_s=first)
    dense, span = range(_DENSE), min(_SPAN, n)
    sparse = [0, span // 2, span - 1]
    times = first, _read_seconds(indexed, dense, fit), _read_seconds(indexed, sparse, fit)
    return indexed, ReadingSpeed(digest, opened, digest_s, *_solved(*times, span))


def _fit_seconds(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], fit: Fit | None) -> float:
    frames = as_frames(array, DEFAULT_SAMPLING, "auto")
    if fit is None or frames.ndim == 3:
        return 0.0
    start = time.perf_counter()
    fit(frames[0])
    return time.perf_counter() - start


def _read_seconds(indexed: Indexed, indices: Sequence[int], fit: Fit | None) -> float:
    info, path = indexed.info, indexed.path
    assert info is not None, "asked of a video"
    assert path is not None, "a video is a file"
    start = time.perf_counter()
    canvas = Canvas(info.source, (info.height, info.width), np.array(indices, np.int64), Keep(fit=fit), None)
    fill(canvas, path, indexed.clip)
    return time.perf_counter() - start


def _solved(first: float, dense: float, sparse: float, span: int) -> tuple[float, float, float]:
    """(start, a decoded frame, a kept frame) from three readings: of one frame, of _DENSE frames, of 3 among `span`.

    None is negative: where noise says so, it counts as 0 and the others take its share.
    """
    both = max(0.0, (dense - first) / (_DENSE - 1))  # a frame that is decoded and kept
    decoded = min(both, max(0.0, (sparse - first - 2 * both) / max(1, span - 3)))
    return max(0.0, first - both), decoded, both - decoded
