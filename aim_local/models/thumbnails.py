"""Small pictures of what the vision tower saw, kept beside its tokens. Knows tiles and grids, no models.

A tower resizes a frame to a square and drops the pixels that fill no patch (SigLIP at 384 px: 27 patches of 14 px are
378). A thumbnail has only what patches cover, in the shape the frame is displayed in, so that a token grid divides it
evenly. At most SIDE pixels a side: 192 frames take 29 MB, whatever the clip's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..native.visual import AnyresPlan

SIDE = 224

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnails:
    """covered: pixels of a tile's side that its patches cover."""

    covered: int

    def whole(self, tile: Pixels, height: int, width: int) -> Pixels:
        """One tile [side, side, 3] that shows a picture of height x width."""
        return fit(tile[: self.covered, : self.covered], height, width)

    def grid(self, tiles: Pixels, plan: AnyresPlan) -> Pixels:
        """Tiles [tile_rows * tile_cols, side, side, 3], put together and cut to the patches that became tokens."""
        n = self.covered
        seen = tiles[:, :n, :n].reshape(plan.tile_rows, plan.tile_cols, n, n, 3).swapaxes(1, 2)
        canvas = seen.reshape(plan.tile_rows * n, plan.tile_cols * n, 3)
        patch = n / plan.patches  # pixels
        top, bottom = round(plan.crop_y * patch), round((plan.crop_y + plan.crop_h) * patch)
        left, right = round(plan.crop_x * patch), round((plan.crop_x + plan.crop_w) * patch)
        cut = canvas[top:bottom, left:right]
        return fit(cut, cut.shape[0], cut.shape[1])


def square(owners: NDArray[np.int32]) -> NDArray[np.int32]:
    """[n * n] -> [n, n]"""
    side = math.isqrt(len(owners))
    return owners.reshape(side, side)


def fit(pixels: Pixels, height: int, width: int) -> Pixels:
    """A copy in the shape height x width, its longer side min(SIDE, the longer side of `pixels`)."""
    long = min(SIDE, max(pixels.shape[:2]))
    scale = long / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels.copy()  # a view would keep every tile of the clip alive
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX))
