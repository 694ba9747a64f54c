"""From pixels to visual tokens: every media piece of a plan through the vision tower."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..media import Image, Video
from ..models.pieces import MediaPiece, TokenGrid, TokenGroup, VisualBlock
from ..native.heap import give_back
from .model import Model
from .plan import Plan
from .tile_rows import ItemRows, TileCounts
from .watch import Watch

_MUCH = 32 << 20  # bytes of rows; a short clip's are not worth the system calls


@dataclass(frozen=True, eq=False)
class Encoded:
    """blocks: visual rows by the index of their piece. groups, grids: of all of them. ms: by stage; tiles: encoded or
    not. ahead_ms: of the vision tower, before the question."""

    blocks: Mapping[int, VisualBlock]
    groups: tuple[TokenGroup, ...]
    grids: tuple[TokenGrid, ...]
    ms: Mapping[str, float]
    tiles: TileCounts
    ahead_ms: float = 0.0


def encode_media(
    model: Model,
    plan: Plan,
    media: Mapping[int, Video | Image],
    watch: Watch,
    rows: Mapping[int, ItemRows] | None = None,
) -> Encoded:
    """Visual rows of every media piece. media: by their number in the conversation.

    rows: what is known of their tiles already, by the same number; a tile of an item that is not in it is encoded,
    whatever it is equal to.
    """
    tower = model.tower
    by_item: dict[int, list[int]] = {}
    for i, piece in enumerate(plan.pieces):
        if isinstance(piece, MediaPiece):
            by_item.setdefault(piece.media, []).append(i)
    if tower is None or not by_item:
        return Encoded({}, (), (), {}, TileCounts())
    given = {item: (rows or {}).get(item) or ItemRows(None, once=True) for item in by_item}
    steps = Steps(watch, sum(tower.n_tiles(media[i].shape) for i in by_item), given.values())
    blocks: dict[int, VisualBlock] = {}
    for item, at in by_item.items():
        wanted = [piece.part for piece in (plan.pieces[i] for i in at) if isinstance(piece, MediaPiece)]
        given[item].on_step = steps
        found = tower.encode(media[item], plan.tokens, wanted, given[item])
        blocks |= {i: _of_item(block, item) for i, block in zip(at, found, strict=True)}
    if sum(item_rows.used() for item_rows in given.values()) > _MUCH:
        give_back()
    return _joined(dict(sorted(blocks.items())), list(given.values()))


class Steps:
    """Tiles whose rows are here, of all of a call. done: what the items have already."""

    def __init__(self, watch: Watch, total: int, items: Iterable[ItemRows]) -> None:
        self._watch, self._total, self._done = watch, total, sum(item.counts.all for item in items)

    def __call__(self) -> None:
        self._done += 1
        self._watch.step("vision", self._done, self._total)


def _of_item(block: VisualBlock, media: int) -> VisualBlock:
    """The block with its item's number: a family numbers from 0."""
    groups = tuple(replace(group, media=media) for group in block.groups)
    return replace(block, groups=groups, grids=tuple(replace(grid, media=media) for grid in block.grids))


def _joined(blocks: dict[int, VisualBlock], items: Sequence[ItemRows]) -> Encoded:
    ms = {"vision": sum(item.ms for item in items)}
    groups, grids, tiles = list[TokenGroup](), list[TokenGrid](), TileCounts()
    for item in items:
        tiles += item.counts
    for block in blocks.values():
        n = np.int32(len(groups))
        grids += [replace(grid, owners=grid.owners + n) for grid in block.grids]
        groups += block.groups
        for stage, spent in block.ms.items():
            ms[stage] = ms.get(stage, 0.0) + spent
    return Encoded(blocks, tuple(groups), tuple(grids), ms, tiles, sum(item.ahead_ms for item in items))
