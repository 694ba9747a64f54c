"""Grounds with texture: seeded noise of several sizes, with or without a slow pan, as behind a hand-held camera.

Knows NumPy only. The plain ground, a fade between two colours, is `world.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]

_CELLS = (3, 6, 12, 24)  # noise cells along a side, from large patches to fine grain
_MARGIN = 0.16  # of a side: how much further than the frame the ground reaches, room for the pan
_CHROMA = 0.35  # of the brightness noise: colours stay dull, so that a shape's colour is a shape's


@dataclass(frozen=True)
class Texture:
    """A ground with texture. `colour`: its mean, RGB; `contrast`: deviation of its brightness, 0..255."""

    seed: int
    colour: tuple[int, int, int]
    contrast: float
    pan: tuple[float, float] = (0.0, 0.0)  # how far the ground moves over the clip, frame sides, each within +-0.16
    across: bool = False  # mirrored left-right
    upside_down: bool = False

    def mirrored(self, across: bool, upside_down: bool) -> Texture:
        """The texture whose frames are this one's flipped left-right and/or top-bottom."""
        return replace(self, across=self.across != across, upside_down=self.upside_down != upside_down)

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Texture:
        """A texture of this generator; one in two pans."""
        r, g, b = (int(c) for c in rng.integers(15, 95, 3) * 0.5 + rng.integers(10, 50))
        seed, contrast = int(rng.integers(2**31)), float(rng.uniform(6, 34))
        x, y = (float(v) for v in rng.uniform(-_MARGIN, _MARGIN, 2))
        return cls(seed, (r, g, b), contrast, (x, y) if rng.random() < 0.5 else (0.0, 0.0))


class Ground:
    """A texture at one frame side, in pixels, ready to be cut."""

    def __init__(self, texture: Texture, side: int) -> None:
        self.texture, self.side = texture, side
        self._canvas = _noise(texture, side + 2 * round(_MARGIN * side))

    def frame(self, share: float) -> Plane:
        """What is behind the shapes: float32 [side, side, 3]; share 0 is the first frame, 1 the last."""
        t, room = self.texture, (len(self._canvas) - self.side) // 2
        x, y = (room + round((share - 0.5) * way * self.side) for way in t.pan)
        cut = self._canvas[y : y + self.side, x : x + self.side]
        return cut[:: -1 if t.upside_down else 1, :: -1 if t.across else 1].copy()


def _noise(t: Texture, side: int) -> Plane:
    """Mean colour plus noise: half the energy of a size at the next finer one. float32 [side, side, 3] in 0..255."""
    rng = np.random.default_rng(t.seed)
    total: Plane = np.zeros((side, side, 3), np.float32)
    for i, n in enumerate(_CELLS):
        grid = rng.normal(size=(n + 2, n + 2, 1)) + _CHROMA * rng.normal(size=(n + 2, n + 2, 3))
        total += 0.7**i * _enlarged(grid.astype(np.float32), side)
    total *= np.float32(t.contrast) / total.std()
    return np.clip(total + np.asarray(t.colour, np.float32), 0, 255)


def _enlarged(grid: Plane, side: int) -> Plane:
    """Bilinear enlargement of [n + 2, n + 2, 3] to [side, side, 3], cell centres half a cell from the edges."""
    at = (np.arange(side, dtype=np.float32) + 0.5) / side * (len(grid) - 2) + 0.5
    low = at.astype(int)
    part = (at - low)[:, None, None]
    rows = grid[low] * (1 - part) + grid[low + 1] * part  # [side, n + 2, 3]
    part = part.reshape(1, -1, 1)
    return np.asarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part, np.float32)
