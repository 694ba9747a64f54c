"""What the families share that write text around frames, or whose tiles have no fixed size: parts of tiles.

A family says how an item stands in the prompt: text, and parts of tiles, where a tile is what one run of the encoder
sees (a frame, a pair of frames, a piece of a picture). Counts, token merging, pictures for explain and the order of
rows follow from that, here. Tiles are merged each by itself; those of one part also in windows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import UsageError
from ..media import Image, MediaShape, Video
from ..native.visual import Merged
from ..reduction.merging import check_clusters, merged_frames, refuse_window
from ..reduction.planner import VisionShape, merge_count
from .base import Fit, Frame, TileRows, TowerFacts, TowerFile
from .keys import refuse_keys
from .loaded import LoadedTower
from .pieces import Part, Rotary, Rows, TokenGrid, TokenGroup, VisualBlock, VisualPart
from .thumbnails import fit
from .tiles import MANY_TOKENS, Clock, windows

Pixels = NDArray[np.uint8]

_WINDOW_PX = 112  # side of a window, where layers have them: of clip.cpp
_PROJECTOR = ("mm.", "v.deepstack.")  # tensors behind the tower's layers


@dataclass(frozen=True)
class Tile:
    """One run of the encoder. frames: of a video, that it shows; of a picture, (number of the tile,).

    rows, cols: of its visual tokens, in raster order. height, width: pixels that the tower sees.
    """

    frames: tuple[int, ...]
    rows: int
    cols: int
    height: int
    width: int
    name: str = "frame"

    @property
    def n(self) -> int:
        return self.rows * self.cols


# an item in the prompt: text, or the tiles of one visual part
Arranged = list[str | tuple[Tile, ...]]


class PartTower(LoadedTower, ABC):
    """Base of such a family."""

    gives_rotary_ids = False
    pair = 1  # frames of a video in one tile
    both_ways = False  # whether the rows of a part attend to each other

    def __init__(self, file: TowerFile) -> None:
        super().__init__(file)
        self._arranged = lru_cache(maxsize=64)(self.arrange)

    # --- what a family decides -------------------------------------------------------------------------------------

    @abstractmethod
    def arrange(self, shape: MediaShape) -> Arranged:
        """How an item stands in the prompt."""

    @abstractmethod
    def fit_for(self, shape: MediaShape) -> Fit:
        """What is kept of a decoded frame of such a video: uint8 [h, w, 3] -> what one tile sees of it."""

    @abstractmethod
    def picture_tiles(self, image: Pixels) -> list[Pixels]:
        """What the tower sees of a picture, uint8 [h, w, 3] each, in the order of its tiles."""

    def rotary(self, tiles: Sequence[Tile], shape: MediaShape) -> Rotary | None:
        """Rotary ids of the rows of a part, before token merging; None where a row has its position alone."""
        return None

    @property
    def reduces_by_default(self) -> bool:
        """Not where a frame has few tokens to begin with."""
        return self.facts is not None and self.facts.n_slots >= MANY_TOKENS

    @property
    @abstractmethod
    def facts(self) -> TowerFacts | None: ...

    # --- the protocol ----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def default_frames(self) -> int: ...

    @property
    @abstractmethod
    def media_tokens(self) -> tuple[str, str] | None: ...

    @property
    def patch_px(self) -> int:
        return self.file.size("patch_size")

    @property
    def frame_rows(self) -> Callable[[Frame], Rows] | None:
        return self.encoder.encode if self.pair == 1 else None

    def tiles(self, shape: MediaShape) -> list[Tile]:
        """All tiles of an item in their order."""
        return [tile for part in self._arranged(shape) if not isinstance(part, str) for tile in part]

    def rows_of_tiles(self, shape: MediaShape) -> list[int]:
        return [tile.n for tile in self.tiles(shape)]

    def n_tiles(self, shape: MediaShape) -> int:
        return len(self.tiles(shape))

    def count(self, shape: MediaShape, retain: float) -> int:
        return sum(part.n for part in self.layout(shape, retain) if isinstance(part, VisualPart))

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        return [part if isinstance(part, str) else _part(part, retain) for part in self._arranged(shape)]

    def merged_together(self, shape: MediaShape, window: int) -> list[int]:
        window = window if shape.kind == "video" else 1
        parts = [part for part in self._arranged(shape) if not isinstance(part, str)]
        return [sum(tile.n for tile in tiles) for part in parts for tiles in _windows(part, window)]

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        refuse_keys(tokens, "this model")
        parts = [part for part in self._arranged(shape) if not isinstance(part, str)]
        if shape.kind == "video" and len(parts) > 1:
            refuse_window(tokens, "this family's videos")
        if shape.kind == "video":
            _check_window(tokens.merge_window, max(len(set(tile.frames)) for tile in parts[0]))
        if any(tile.rows != tile.cols for part in parts for tile in part):
            _refuse_squares(tokens)
        check_clusters(tokens, self.merged_together(shape, tokens.merge_window))

    def encode(
        self, item: Video | Image, tokens: VisualTokenConfig, wanted: Sequence[int], tile_rows: TileRows
    ) -> list[VisualBlock]:
        shape = item.shape
        parts = [part for part in self._arranged(shape) if not isinstance(part, str)]
        firsts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        pictures = _Pictures(self, item)
        return [self._block(item, tokens, parts[i], firsts[i], pictures, tile_rows) for i in wanted]

    def close(self) -> None:
        self._arranged.cache_clear()
        super().close()

    # --- encoding --------------------------------------------------------------------------------------------------

    def _block(
        self,
        item: Video | Image,
        tokens: VisualTokenConfig,
        part: tuple[Tile, ...],
        first: int,
        pictures: _Pictures,
        tile_rows: TileRows,
    ) -> VisualBlock:
        clock, shape = Clock(), item.shape
        window = tokens.merge_window if shape.kind == "video" else 1
        rows, slots, groups, grids = list[Rows](), list[int](), list[TokenGroup](), list[TokenGrid]()
        sizes, number, n_slots = list[NDArray[np.int32]](), first, 0
        for tiles in _windows(part, window):
            shown = [pictures.of(number + i, tile) for i, tile in enumerate(tiles)]
            found = self._merged(
                [tile_rows(number + i, pixels, partial(self.encoder.encode, pixels)) for i, pixels in enumerate(shown)],
                tokens if shape.kind == "video" else replace(tokens, merge_window=1),
                clock,
            )
            owners = np.split(found.owners + np.int32(len(groups)), np.cumsum([tile.n for tile in tiles])[:-1])
            grids += [_grid(item, tile, pixels, own) for tile, pixels, own in zip(tiles, shown, owners, strict=True)]
            groups += [_group(tiles, slot) for slot in found.slots.tolist()]
            slots += (found.slots + n_slots).tolist()
            rows.append(found.rows)
            sizes.append(found.sizes)
            number, n_slots = number + len(tiles), n_slots + len(found.owners)
        turned = self.rotary(part, shape)
        return VisualBlock(
            np.concatenate(rows),
            tuple(groups),
            tuple(grids),
            clock.ms,
            sizes=np.concatenate(sizes),
            rotary=None if turned is None else Rotary(turned.ids[slots], turned.advance),
            both_ways=self.both_ways,
        )

    def _merged(self, tiles: list[Rows], tokens: VisualTokenConfig, clock: Clock) -> Merged:
        """Rows of tiles that are merged together. What the first layers of the text tower add is averaged alike."""
        n_embd = self.file.text.shape.n_embd
        with clock.timed("merge"):
            if tiles[0].shape[1] == n_embd:
                return merged_frames(tiles, tokens)
            found = merged_frames([np.ascontiguousarray(rows[:, :n_embd]) for rows in tiles], tokens)
            added = _means(np.concatenate([rows[:, n_embd:] for rows in tiles]), found)
            return Merged(np.concatenate([found.rows, added], axis=1), found.slots, found.owners)


class _Pictures:
    """What the tower sees of an item, tile by tile."""

    def __init__(self, tower: PartTower, item: Video | Image) -> None:
        self._frames = list(item.frames) if isinstance(item, Video) else tower.picture_tiles(item.pixels)
        self._is_video = isinstance(item, Video)

    def of(self, number: int, tile: Tile) -> Pixels:
        """uint8 [h, w, 3], or [k, h, w, 3] for k frames in one tile"""
        if not self._is_video:
            return self._frames[number]
        shown = [self._frames[i] for i in tile.frames]
        return shown[0] if len(shown) == 1 else np.stack(shown)


def _part(tiles: tuple[Tile, ...], retain: float) -> VisualPart:
    return VisualPart(sum(merge_count(tile.n, retain) for tile in tiles), sum(tile.n for tile in tiles))


def _windows(part: tuple[Tile, ...], window: int) -> list[tuple[Tile, ...]]:
    """Tiles that are merged together. window: in frames."""
    size = max(1, window // len(part[0].frames))
    return [part[w.start : w.stop] for w in windows(len(part), size)]


def _check_window(window: int, n_frames: int) -> None:
    """Raises UsageError for a window that would cut a tile of n_frames frames."""
    if window > 1 and window % n_frames:
        raise UsageError(
            f"a window of {window} frames cuts what the vision tower sees at once, {n_frames} frames; take "
            f"{window + n_frames - window % n_frames}, or a window of 1"
        )


def _refuse_squares(tokens: VisualTokenConfig) -> None:
    """Raises UsageError where squares would be averaged of a grid that is none."""
    if tokens.merge_by == "average" and tokens.merge_retain < 1:
        raise UsageError(
            "merging by average needs as many rows as columns of visual tokens, and this family keeps a picture's "
            "shape; take merging by similarity or by ward"
        )


def _group(tiles: tuple[Tile, ...], slot: int) -> TokenGroup:
    n = tiles[0].n  # the tiles of a window have one size
    return TokenGroup(0, tiles[slot // n].frames[0], slot % n)


def _grid(item: Video | Image, tile: Tile, pixels: Pixels, owners: NDArray[np.int32]) -> TokenGrid:
    seen = pixels if pixels.ndim == 3 else pixels[0]
    thumb = fit(seen, *seen.shape[:2])
    table = owners.reshape(tile.rows, tile.cols)
    if isinstance(item, Image):
        return TokenGrid(0, tile.frames[0], tile.name, thumb, table)
    frame = tile.frames[0]
    return TokenGrid(0, frame, tile.name, thumb, table, int(item.indices[frame]), float(item.timestamps[frame]))


def _means(rows: Rows, found: Merged) -> Rows:
    """Means over the rows that each merged row stands for, in float64 between."""
    if len(found.rows) == len(rows):
        return rows[found.slots]
    sums = np.zeros((len(found.rows), rows.shape[1]))
    np.add.at(sums, found.owners, rows)
    return (sums / found.sizes[:, None]).astype(np.float32)


def tower_facts(file: TowerFile, tile: Tile) -> TowerFacts:
    """What plans need to know of a tower that sees such tiles."""
    patch, layers, every = file.size("patch_size"), file.size("block_count"), file.size("n_wa_pattern")
    shapes = {tensor.name: tensor.shape for tensor in file.header.tensors if len(tensor.shape) == 2}
    vision = VisionShape(
        n_layer=layers,
        n_embd=file.size("embedding_length"),
        n_ff=file.size("feed_forward_length"),
        n_head=file.size("attention.head_count"),
        n_patch=(tile.height // patch) * (tile.width // patch),
        patch_px=patch,
        n_embd_text=file.text.n_embd,
        gated="v.blk.0.ffn_gate.weight" in shapes,
        n_windowed=layers - layers // every if every else 0,
        window=(_WINDOW_PX // patch) ** 2,
        projector=tile.n * sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(_PROJECTOR)),
    )
    return TowerFacts(vision, file.header, tile.n, tile.height, tile.width, len(tile.frames), file.n_threads)
