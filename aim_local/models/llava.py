"""LLaVA-1.5: one CLIP tile a picture, its patches are the visual tokens. A video is so many pictures, no newlines."""

from __future__ import annotations

from ..config import VisualTokenConfig
from ..media import Image, MediaShape
from ..reduction.merging import merged
from ..reduction.planner import merge_count
from .base import TileRows, TowerFile
from .pieces import TokenGrid, VisualBlock
from .pixels import image_tiles
from .thumbnails import square
from .tiles import Clock, TileTower, frame_groups

_NORM_WEIGHT = "mm.3.weight"  # clip.cpp tells MLP_NORM (Yi) from MLP by this tensor


class Llava(TileTower):
    """projector "mlp"."""

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        """As aim_mtmd_has_tiles decides for a loaded one."""
        is_norm = any(tensor.name == _NORM_WEIGHT for tensor in file.header.tensors)
        return file.projector == "mlp" and not is_norm

    def frame_shape(self, shape: MediaShape) -> tuple[int, int]:
        return 1, 1  # a square is cut out

    def image_count(self, shape: MediaShape, retain: float) -> int:
        return merge_count(self.frame_side**2, retain)

    def image_tiles(self, shape: MediaShape) -> int:
        return 1

    def image_parts(self, shape: MediaShape) -> list[int]:
        return [self.frame_side**2]

    def encode_image(self, item: Image, tokens: VisualTokenConfig, tile_rows: TileRows) -> VisualBlock:
        clock = Clock()
        with clock.timed("preprocess"):
            tiles = image_tiles(item.pixels, self.pixels)
        (patches,) = self.encode_tiles(tiles, tile_rows)
        with clock.timed("merge"):
            found = merged(patches, tokens)
        grid = TokenGrid(
            0, 0, "image", self.thumbs.whole(tiles[0], *self.frame_shape(item.shape)), square(found.owners)
        )
        return VisualBlock(found.rows, tuple(frame_groups(range(1), found)), (grid,), clock.ms, sizes=found.sizes)
