"""Pictures of any resolution: a base view and a grid of tiles, a newline behind each row of the grid's patches.

What LLaVA-OneVision and LLaVA-NeXT share. Patches that cover nothing but padding are left out; base view and grid are
merged apart, newlines never.
ref: transformers 5, models/llava_next/modeling_llava_next.py: pack_image_features
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..media import Image, MediaShape
from ..native.visual import AnyresPlan, anyres_pack
from ..reduction.merging import refuse_baselines
from .base import TileRows, TowerFile
from .pieces import Rows, TokenGrid, TokenGroup, VisualBlock
from .pixels import image_tiles, plan_image
from .thumbnails import square
from .tiles import NEWLINE, Clock, TileTower


class AnyresTower(TileTower):
    """Base of such a family."""

    def __init__(self, file: TowerFile) -> None:
        super().__init__(file)
        self._newline = self.read_newline() if file.weights else None

    @property
    def newline(self) -> Rows | None:
        return self._newline

    def image_count(self, shape: MediaShape, retain: float) -> int:
        return self._plan(shape).count(retain)

    def image_tiles(self, shape: MediaShape) -> int:
        return self._plan(shape).n_tiles

    def image_parts(self, shape: MediaShape) -> list[int]:
        """Base view and tile grid."""
        plan = self._plan(shape)
        return [plan.patches**2, plan.grid_h * plan.grid_w]

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        super().check_merging(shape, tokens)
        if shape.kind == "image":
            refuse_baselines(tokens, "pictures of any resolution")

    def _plan(self, shape: MediaShape) -> AnyresPlan:
        return plan_image(shape.height, shape.width, self.pixels, self.patches_per_side)

    def encode_image(self, item: Image, tokens: VisualTokenConfig, tile_rows: TileRows) -> VisualBlock:
        clock, plan = Clock(), self._plan(item.shape)
        with clock.timed("preprocess"):
            tiles = image_tiles(item.pixels, self.pixels)
        encoded = self.encode_tiles(tiles, tile_rows)
        assert self.newline is not None, "read when the tower was loaded"
        with clock.timed("merge"):
            is_ward = tokens.merge_by == "ward"
            packed = anyres_pack(plan, np.stack(encoded), self.newline, tokens.merge_retain, ward=is_ward)
        n_base = self.patches_per_side**2
        groups = tuple(_image_group(int(slot), n_base) for slot in packed.slots)
        return VisualBlock(
            packed.rows, groups, self._grids(item, plan, tiles, packed.owners), clock.ms, sizes=packed.sizes
        )

    def _grids(
        self, item: Image, plan: AnyresPlan, tiles: NDArray[np.uint8], owners: NDArray[np.int32]
    ) -> tuple[TokenGrid, ...]:
        height, width = item.pixels.shape[:2]
        n_base = plan.patches**2
        base = self.thumbs.whole(tiles[0], height, width)
        grid = owners[n_base:].reshape(plan.grid_h, plan.grid_w)
        return (
            TokenGrid(0, 0, "base view", base, square(owners[:n_base])),
            TokenGrid(0, 1, "tile grid", self.thumbs.grid(tiles[1:], plan), grid),
        )


def _image_group(slot: int, n_base: int) -> TokenGroup:
    """Frame 0 is the base view, frame 1 the tiles' grid."""
    if slot < 0:
        return TokenGroup(0, 1, NEWLINE)
    return TokenGroup(0, 0, slot) if slot < n_base else TokenGroup(0, 1, slot - n_base)
