"""LLaVA-1.5: one CLIP tile a picture, its patches are the visual tokens. A video is so many pictures, no newlines.

A picture can be merged before the projector by the keys of the tower's last layer, as AIM's authors have it: K of the
layer behind the features, its averages going on to a further round as those of the features do.
"""

from __future__ import annotations

from functools import partial

from ..config import VisualTokenConfig
from ..errors import UsageError
from ..media import Image, MediaShape
from ..native.visual import Merged, merge_by_keys
from ..reduction.merging import check_clusters, merged
from ..reduction.planner import merge_count
from .base import TileRows, TowerFile
from .card import Card
from .keys import by_keys, refuse_keys
from .pieces import TokenGrid, VisualBlock
from .pixels import image_tiles
from .thumbnails import square
from .tiles import Clock, Pixels, TileTower, frame_groups

_NORM_WEIGHT = "mm.3.weight"  # clip.cpp tells MLP_NORM (Yi) from MLP by this tensor


class Llava(TileTower):
    """projector "mlp"."""

    cards = (
        Card(
            title="LLaVA-1.5",
            checkpoints="llava-hf and original releases",
            text=("llama",),
            video="a picture a frame, no times",
            merging="yes, in windows of frames too; pictures also by keys (`authors`)",
            converters=("llava",),
        ),
    )

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

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        if shape.kind == "video":  # its frames are encoded before anyone says how to merge them
            refuse_keys(tokens, "a video")
        if by_keys(tokens) and not self._has_keys:
            raise UsageError(
                f"{self.file.path}: has no keys to merge by, which `aim-local convert` writes with the tower's last "
                "layer; convert the checkpoint again, or take merging by similarity"
            )
        check_clusters(tokens, self.merged_together(shape, tokens.merge_window))

    @property
    def _has_keys(self) -> bool:
        behind = f"v.blk.{self.file.size('block_count')}.attn_k.weight"
        return any(tensor.name == behind for tensor in self.file.header.tensors)

    def encode_image(self, item: Image, tokens: VisualTokenConfig, tile_rows: TileRows) -> VisualBlock:
        clock = Clock()
        with clock.timed("preprocess"):
            tiles = image_tiles(item.pixels, self.pixels)
        if by_keys(tokens):
            found = self._merged_by_keys(tiles[0], tokens.merge_retain, tile_rows, clock)
        else:
            (patches,) = self.encode_tiles(tiles, tile_rows)
            with clock.timed("merge"):
                found = merged(patches, tokens)
        grid = TokenGrid(
            0, 0, "image", self.thumbs.whole(tiles[0], *self.frame_shape(item.shape)), square(found.owners)
        )
        return VisualBlock(found.rows, tuple(frame_groups(range(1), found)), (grid,), clock.ms, sizes=found.sizes)

    def _merged_by_keys(self, tile: Pixels, retain: float, tile_rows: TileRows, clock: Clock) -> Merged:
        both = tile_rows(0, tile, partial(self.encoder.features, tile, keys=True), shared=False)
        width = both.shape[1] // 2
        with clock.timed("merge"):
            found = merge_by_keys(both[:, :width].copy(), both[:, width:].copy(), retain)
        with clock.timed("vision"):
            return Merged(self.encoder.project(found.rows), found.slots, found.owners)
