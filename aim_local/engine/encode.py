"""From pixels to visual tokens: every media piece of a plan through the vision tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..media import Image, Video
from ..models.pieces import MediaPiece, TokenGrid, TokenGroup, VisualBlock
from ..models.reuse import Seen, Shared
from .model import Model
from .plan import Plan
from .tile_rows import ItemRows, TileCounts
from .watch import Watch


@dataclass(frozen=True, eq=False)
class Encoded:
    """blocks: visual rows by the index of their piece. groups, grids: of all of them. ms: by stage; tiles: encoded or
    not."""

    blocks: Mapping[int, VisualBlock]
    groups: tuple[TokenGroup, ...]
    grids: tuple[TokenGrid, ...]
    ms: Mapping[str, float]
    tiles: TileCounts


def encode_media(
    model: Model, plan: Plan, media: Mapping[int, Video | Image], watch: Watch, *, reuse: bool = True
) -> Encoded:
    """Visual rows of every media piece. media: by their number in the conversation.

    reuse=False: every tile is encoded, also equal ones; for measuring.
    """
    tower = model.tower
    by_item: dict[int, list[int]] = {}
    for i, piece in enumerate(plan.pieces):
        if isinstance(piece, MediaPiece):
            by_item.setdefault(piece.media, []).append(i)
    if tower is None or not by_item:
        return Encoded({}, (), (), {}, TileCounts())
    step = _Steps(watch, sum(tower.n_tiles(media[i].shape) for i in by_item))
    near_px = tower.patch_px if model.config.reuse_frames == "near" else 0
    blocks, shared, tiles, vision_ms = dict[int, VisualBlock](), Shared(), TileCounts(), 0.0
    for item, at in by_item.items():
        wanted = [piece.part for piece in (plan.pieces[i] for i in at) if isinstance(piece, MediaPiece)]
        rows = ItemRows(Seen(media[item].shape.kind, shared, near_px) if reuse else None, step)
        found = tower.encode(media[item], plan.tokens, wanted, rows)
        blocks |= {i: _of_item(block, item) for i, block in zip(at, found, strict=True)}
        tiles, vision_ms = tiles + rows.counts, vision_ms + rows.ms
    return _joined(dict(sorted(blocks.items())), vision_ms, tiles)


class _Steps:
    """Encoder runs done of all."""

    def __init__(self, watch: Watch, total: int) -> None:
        self._watch, self._total, self._done = watch, total, 0

    def __call__(self) -> None:
        self._done += 1
        self._watch.step("vision", self._done, self._total)


def _of_item(block: VisualBlock, media: int) -> VisualBlock:
    """The block with its item's number: a family numbers from 0."""
    groups = tuple(replace(group, media=media) for group in block.groups)
    return replace(block, groups=groups, grids=tuple(replace(grid, media=media) for grid in block.grids))


def _joined(blocks: dict[int, VisualBlock], vision_ms: float, tiles: TileCounts) -> Encoded:
    groups, grids, ms = list[TokenGroup](), list[TokenGrid](), {"vision": vision_ms}
    for block in blocks.values():
        n = np.int32(len(groups))
        grids += [replace(grid, owners=grid.owners + n) for grid in block.grids]
        groups += block.groups
        for stage, spent in block.ms.items():
            ms[stage] = ms.get(stage, 0.0) + spent
    return Encoded(blocks, tuple(groups), tuple(grids), ms, tiles)
