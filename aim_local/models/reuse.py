"""Frames that need not be encoded: whose pixels were encoded already, or differ from those by noise only.

Knows pixels of the tower's size. What is done with a frame that was found is for others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .pieces import Rows

NOISE = 2.5  # 8-bit levels, root mean square over a patch; docs/encoding.md has the measurements

Pixels = NDArray[np.uint8]
Why = Literal["equal", "near"]
K = TypeVar("K")


def pixel_digest(pixels: Pixels) -> bytes:
    """sha256 of shape and pixels: equal bytes in another shape are another picture."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def largest_change(a: Pixels, b: Pixels, patch_px: int) -> float:
    """The largest difference of a patch between two tiles uint8 [..., height, width, 3]: RMS over pixels and colours.

    The maximum over patches decides, so that a small thing that moves is not lost in a still background. Pixels at the
    right and lower edge that fill no patch are not seen by the tower and do not count.
    """
    rows, columns = a.shape[-3] // patch_px, a.shape[-2] // patch_px
    height, width = rows * patch_px, columns * patch_px
    # both as floats: numpy crashes where it gets no memory for the buffers of an operation on two types
    change = a[..., :height, :width, :].astype(np.float32)
    change -= b[..., :height, :width, :].astype(np.float32)
    squares = np.square(change, out=change).reshape(-1, rows, patch_px, columns, patch_px * 3).sum(axis=4)
    return float(np.sqrt(squares.sum(axis=2).max() / (patch_px * patch_px * 3)))


def _keep_last(known: dict[K, Rows], n: int) -> None:
    for key in list(known)[: max(0, len(known) - n)]:
        del known[key]


@dataclass
class Shared:
    """Rows of every tile that was encoded in a call, by kind of item and digest of the pixels."""

    rows: dict[tuple[str, bytes], Rows] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Found:
    rows: Rows
    why: Why


class Seen:
    """Tiles of one item. shared: those of the call; patch_px: 0 finds equal tiles only.

    Nearly equal is always judged against the tile whose rows are taken, never against another that was itself found
    near: slow changes add up until a frame is encoded again. A near frame's rows serve this item alone, so what an item
    becomes does not depend on those beside it.
    """

    def __init__(self, kind: str, shared: Shared, patch_px: int) -> None:
        self._kind, self._shared, self._patch_px = kind, shared, patch_px
        self._near: dict[bytes, Rows] = {}
        self._last: tuple[Pixels, Rows] | None = None  # the last tile whose own rows were taken

    def find(self, pixels: Pixels) -> Found | None:
        """Rows to take for a tile, None where it has to be encoded."""
        digest = pixel_digest(pixels)
        rows = self._shared.rows.get((self._kind, digest))
        if rows is not None:
            self._last = pixels, rows
            return Found(rows, "equal")
        rows = self._near.get(digest)
        if rows is not None:
            return Found(rows, "near")
        if self._patch_px and self._last and self._last[0].shape == pixels.shape:
            reference, rows = self._last
            if largest_change(reference, pixels, self._patch_px) <= NOISE:
                self._near[digest] = rows
                return Found(rows, "near")
        return None

    def forget(self) -> None:
        """All tiles of the call are encoded."""
        self._shared.rows.clear()
        self._near.clear()
        self._last = None

    def keep_last(self, n: int) -> None:
        """Forgets all but the last n tiles of each kind, for an item without an end; the last one stays beside them.

        What is forgotten is encoded again where it comes again.
        """
        _keep_last(self._shared.rows, n)
        _keep_last(self._near, n)

    def add(self, pixels: Pixels, rows: Rows) -> None:
        """A tile that was encoded."""
        self._shared.rows[self._kind, pixel_digest(pixels)] = rows
        self._last = pixels, rows
