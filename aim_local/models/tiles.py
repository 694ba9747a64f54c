"""What the families share whose tower we run one square tile at a time: pixels, frames, merging, pictures of a tile.

A family on top of it says how a frame's patches become slots, and which newline rows stand where.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import ModelError
from ..media import Image, MediaShape, Video
from ..native.visual import Merged
from ..reduction.merging import check_clusters, merged_frames
from ..reduction.planner import VisionShape, merge_count
from .base import Fit, TileRows, TowerFacts, TowerFile
from .keys import refuse_keys
from .loaded import LoadedTower
from .marks import check_marks
from .pieces import Part, Rows, TokenGrid, TokenGroup, VisualBlock, VisualPart
from .pixels import PreprocessConfig, video_frame
from .thumbnails import Thumbnails, square

MANY_TOKENS = 64  # of a frame; the paper's setting was found at 196, and with few there is little to merge
NEWLINE = -1  # frame and slot of a newline row

Pixels = NDArray[np.uint8]


class TileTower(LoadedTower):
    """Base of such a family."""

    def __init__(self, file: TowerFile) -> None:
        check_marks(file.header, lambda: file.text.llama.special_names)
        super().__init__(file)
        self.pixels = PreprocessConfig.from_metadata(file.metadata)
        self.patches_per_side = file.size("image_size") // max(1, file.size("patch_size"))
        self.thumbs = Thumbnails(self.patches_per_side * file.size("patch_size") or self.pixels.side)

    # --- what a family decides -------------------------------------------------------------------------------------

    @property
    def frame_side(self) -> int:
        """Slots per side of a frame before token merging."""
        return self.patches_per_side

    @property
    def reduces_by_default(self) -> bool:
        return False

    @property
    def n_frame_newlines(self) -> int:
        """Newline rows inside each frame."""
        return 0

    @property
    def n_end_newlines(self) -> int:
        """Newline rows behind the last frame."""
        return 0

    @property
    def newline(self) -> Rows | None:
        """float32 [n_embd]; None for families without one."""
        return None

    def frame_shape(self, shape: MediaShape) -> tuple[int, int]:
        """(height, width) in which a frame's thumbnail is shown."""
        return shape.height, shape.width

    def pool(self, patches: Rows) -> Rows:
        """[patches_per_side^2, n_embd] -> [frame_side^2, n_embd]"""
        return patches

    def close_frames(self, found: Merged) -> Merged:
        """The merged frames of a window with their newline rows."""
        return found

    def image_count(self, shape: MediaShape, retain: float) -> int:
        raise NotImplementedError

    def image_tiles(self, shape: MediaShape) -> int:
        raise NotImplementedError

    def image_parts(self, shape: MediaShape) -> list[int]:
        """Rows of each part of a picture that is merged by itself."""
        raise NotImplementedError

    def encode_image(self, item: Image, tokens: VisualTokenConfig, tile_rows: TileRows) -> VisualBlock:
        raise NotImplementedError

    # --- the protocol ----------------------------------------------------------------------------------------------

    @property
    def default_frames(self) -> int:
        return self.file.number("aim.video.n_frames", 32)

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        metadata = self.file.metadata
        return str(metadata.get("aim.image_token", "<image>")), str(metadata.get("aim.video_token", ""))

    @property
    def fit(self) -> Fit:
        """A frame of any video, to a tile."""
        pixels = self.pixels
        return lambda frame: video_frame(frame, pixels)

    def fit_for(self, shape: MediaShape) -> Fit | None:
        return self.fit

    @property
    def patch_px(self) -> int:
        return self.file.size("patch_size")

    @property
    def facts(self) -> TowerFacts | None:
        file = self.file
        vision = VisionShape(
            n_layer=file.size("block_count"),
            n_embd=file.size("embedding_length"),
            n_ff=file.size("feed_forward_length"),
            n_head=file.size("attention.head_count"),
            n_patch=self.patches_per_side**2,
            patch_px=file.size("patch_size"),
            n_embd_text=file.text.n_embd,
        ).merged(file.text.config.vision_merge, file.text.config.vision_merge_depth)
        slots, side = self.frame_side**2, file.size("image_size")
        return TowerFacts(vision, file.header, slots, side, side, 1, file.n_threads)

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return self.facts

    def count(self, shape: MediaShape, retain: float) -> int:
        if shape.kind == "image":
            return self.image_count(shape, retain)
        frame = merge_count(self.frame_side**2, retain) + self.n_frame_newlines
        return shape.n_frames * frame + self.n_end_newlines

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        return [VisualPart(self.count(shape, retain), self.count(shape, 1.0))]

    @property
    def gives_rotary_ids(self) -> bool:
        return False

    def merged_together(self, shape: MediaShape, window: int) -> list[int]:
        if shape.kind == "image":
            return self.image_parts(shape)
        return [len(frames) * self.frame_side**2 for frames in windows(shape.n_frames, window)]

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        refuse_keys(tokens, "this model")
        check_clusters(tokens, self.merged_together(shape, tokens.merge_window))

    def n_tiles(self, shape: MediaShape) -> int:
        return shape.n_frames if shape.kind == "video" else self.image_tiles(shape)

    def rows_of_tiles(self, shape: MediaShape) -> list[int]:
        n = self.frame_side if shape.kind == "video" else self.patches_per_side
        return [n**2] * self.n_tiles(shape)

    def encode(
        self, item: Video | Image, tokens: VisualTokenConfig, wanted: Sequence[int], tile_rows: TileRows
    ) -> list[VisualBlock]:
        del wanted  # an item is one part
        if isinstance(item, Video):
            return [self._encode_video(item, tokens, tile_rows)]
        return [self.encode_image(item, tokens, tile_rows)]

    # --- encoding --------------------------------------------------------------------------------------------------

    def encode_tiles(self, tiles: Pixels, tile_rows: TileRows) -> list[Rows]:
        """Tiles of a picture, uint8 [n, side, side, 3] -> n times float32 [patches_per_side^2, n_embd]"""
        return [tile_rows(i, tile, partial(self.encoder.encode, tile)) for i, tile in enumerate(tiles)]

    def frame_rows(self, tile: Pixels) -> Rows:
        """A frame, uint8 [side, side, 3] -> float32 [frame_side^2, n_embd]: encoded and pooled, nothing merged."""
        return self.pool(self.encoder.encode(tile))

    def _encode_video(self, item: Video, tokens: VisualTokenConfig, tile_rows: TileRows) -> VisualBlock:
        clock, rows, groups, grids = Clock(), list[Rows](), list[TokenGroup](), list[TokenGrid]()
        sizes: list[NDArray[np.int32]] = []
        height, width = self.frame_shape(item.shape)
        for window in windows(len(item.frames), tokens.merge_window):
            tiles = [item.frames[frame] for frame in window]
            slots = [tile_rows(i, tile, partial(self.frame_rows, tile)) for i, tile in zip(window, tiles, strict=True)]
            with clock.timed("merge"):
                found = self.close_frames(merged_frames(slots, tokens))
            covered = np.split(found.owners + np.int32(len(groups)), len(window))
            for frame, tile, owners in zip(window, tiles, covered, strict=True):
                thumb = self.thumbs.whole(tile, height, width)
                when = int(item.indices[frame]), float(item.timestamps[frame])
                grids.append(TokenGrid(0, frame, "frame", thumb, square(owners), *when))
            rows.append(found.rows)
            sizes.append(found.sizes)
            groups += frame_groups(window, found, self.n_frame_newlines)
        if self.n_end_newlines and self.newline is not None:
            rows.append(self.newline[None])
            sizes.append(np.ones(1, np.int32))
            groups.append(TokenGroup(0, NEWLINE, NEWLINE))
        return VisualBlock(np.concatenate(rows), tuple(groups), tuple(grids), clock.ms, sizes=np.concatenate(sizes))

    def read_newline(self) -> Rows:
        """float32 [n_embd]. Raises ModelError where the file lacks it."""
        found = self.encoder.newline()
        if found is None:
            raise ModelError(f"{self.file.path}: lacks v.image_newline; convert the checkpoint again")
        return found


def windows(n_frames: int, size: int) -> list[range]:
    """Frames that are merged together; the last window may be shorter."""
    return [range(first, min(first + size, n_frames)) for first in range(0, n_frames, size)]


def frame_groups(window: range, found: Merged, n_newlines: int = 0) -> list[TokenGroup]:
    """One group per row of a window's merged frames, or of a picture. n_newlines: rows of each frame among them."""
    groups, n_slots, passed = list[TokenGroup](), len(found.owners) // len(window), 0
    for slot in found.slots.tolist():
        if slot == NEWLINE:
            groups.append(TokenGroup(0, window[passed // n_newlines], NEWLINE))
            passed += 1
        else:
            groups.append(TokenGroup(0, window[slot // n_slots], slot % n_slots))
    return groups


def average_squares(rows: Rows, k: int) -> Rows:
    """Means over k x k squares of a square grid [n^2, width]; a rest that fills no square is left out."""
    side = math.isqrt(len(rows))
    n = side // k
    grid = rows.reshape(side, side, -1)[: n * k, : n * k].reshape(n, k, n, k, -1)
    return np.ascontiguousarray(grid.mean(axis=(1, 3), dtype=np.float32).reshape(n * n, -1))


class Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[stage] = self.ms.get(stage, 0.0) + (time.perf_counter() - start) * 1000
