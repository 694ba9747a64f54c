"""One picture with its token grid on it. Pure arrays: token numbers and pixels in, pixels out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.pieces import TokenGrid
from .colours import Pixels, fogged, heated, hues

_DROPPED_LINE = 78  # grey, a little darker than the fog


def sized(grid: TokenGrid, side: int) -> tuple[int, int]:
    """(height, width) of the picture when its longer side is `side` pixels."""
    height, width = grid.pixels.shape[:2]
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def scaled(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def owner_map(owners: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """[rows, cols] -> [height, width]: the token that covers each pixel, the grid lying evenly on the picture."""
    rows, cols = owners.shape
    y = (2 * np.arange(height) + 1) * rows // (2 * height)  # the slot that holds the pixel's centre
    x = (2 * np.arange(width) + 1) * cols // (2 * width)
    return np.asarray(owners[y[:, None], x[None, :]])


def edges(owner: NDArray[np.int32], thick: int) -> NDArray[np.bool_]:
    """[h, w]: pixels at most `thick` from another token's pixel or from the picture's border."""
    h, w = owner.shape
    padded = np.pad(owner, thick, constant_values=-1)
    found = np.zeros((h, w), np.bool_)
    for d in range(1, thick + 1):
        for dy, dx in ((-d, 0), (d, 0), (0, -d), (0, d), (-d, -d), (-d, d), (d, -d), (d, d)):
            found |= padded[thick + dy : thick + dy + h, thick + dx : thick + dx + w] != owner
    return found


def paint(grid: TokenGrid, kept: NDArray[np.bool_], size: tuple[int, int]) -> Pixels:
    """uint8 [h, w, 3]: patches of kept tokens as they are, in an outline of the token's own colour, the rest veiled.

    kept: [n tokens of the prompt].
    """
    pixels = scaled(grid.pixels, *size)
    owner = owner_map(grid.owners, *size)
    out = np.where(kept[owner][..., None], pixels, fogged(pixels))
    return _outlined(out, owner, kept)


def paint_heat(grid: TokenGrid, levels: NDArray[np.float64], size: tuple[int, int]) -> Pixels:
    """uint8 [h, w, 3]: the heat map over the grey picture; tokens without a level are veiled."""
    pixels = scaled(grid.pixels, *size)
    owner = owner_map(grid.owners, *size)
    heat = levels[owner]
    out = np.where(np.isnan(heat)[..., None], fogged(pixels), heated(pixels, np.nan_to_num(heat)))
    return _outlined(out, owner, np.zeros(len(levels), np.bool_))


def _outlined(pixels: Pixels, owner: NDArray[np.int32], bright: NDArray[np.bool_]) -> Pixels:
    """Thin lines along the token's borders: a token's own colour where it is bright, grey elsewhere."""
    first, last = int(owner.min()), int(owner.max())
    table = np.full((last + 1 - first, 3), _DROPPED_LINE, np.uint8)
    shown = bright[first : last + 1]
    table[shown] = hues(first, last + 1 - first)[shown]
    thick = 2 if min(pixels.shape[:2]) >= 100 else 1
    line = np.where(bright[owner], edges(owner, thick), edges(owner, 1))
    return np.where(line[..., None], table[owner - first], pixels)
