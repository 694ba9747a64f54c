"""The vision tower: media in, visual tokens out, merged where asked; counts known before anything is encoded.

Two ways: towers we run tile by tile (LLaVA-OneVision, LLaVA-1.5) and foreign ones that mtmd runs (foreign.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import ModelError, NativeError
from ..media import Image, Video
from ..native import log as _logs
from ..native.library import mtmd
from ..native.llama import FLASH_ATTN, TextModel, thread_count
from ..native.visual import AnyresPlan, TileEncoder, anyres_pack, pool_rows
from ..reduction.merging import check_similarity, merged
from ..results import Stats, TokenGrid, TokenGroup
from .base import VisionHead
from .mtmd import ForeignTower
from .pieces import MediaPiece, Piece, VisualBlock
from .pixels import image_tiles, video_frames
from .thumbnails import Thumbnails, square

_NEWLINE = -1

Rows = NDArray[np.float32]
Step = Callable[[], None]


class VisionTower(VisionHead):
    """A loaded mmproj beside its text model. `close()` frees it."""

    def __init__(self, path: Path, text: TextModel) -> None:
        super().__init__(path, text)
        width = int(self.metadata.get("clip.vision.embedding_length", 0))
        self._n_threads = thread_count(text.config.n_threads, width)
        self._ctx = self._open()
        self.is_foreign = not TileEncoder.supports(self._ctx)
        self._foreign = ForeignTower(self._ctx, text.n_embd) if self.is_foreign else None
        if not self.is_foreign:
            self._tiles = TileEncoder(self._ctx, self._n_threads)
            self._newline = self._read_newline()
            covered = self._tiles.patches_per_side * int(self.metadata.get("clip.vision.patch_size", 0))
            self._thumbs = Thumbnails(covered or self._tiles.side)

    def _open(self) -> Any:
        params = mtmd.mtmd_context_params_default()
        config = self.text.config
        params.use_gpu = config.n_gpu_layers != 0
        params.print_timings = False
        params.warmup = False
        params.flash_attn_type = FLASH_ATTN[config.flash_attn]
        params.n_threads = self._n_threads
        _logs.clear()
        ctx = mtmd.mtmd_init_from_file(str(self.path).encode(), self.text.handle, params)
        if not ctx:
            raise ModelError(f"{self.path}: does not load: {_logs.last_error()}")
        if not mtmd.mtmd_support_vision(ctx):
            mtmd.mtmd_free(ctx)
            raise ModelError(f"{self.path}: has no vision tower; take the model's vision mmproj")
        return ctx

    def _read_newline(self) -> Rows:
        """float32 [n_embd]; zeros, never used, for towers without one."""
        newline = self._tiles.newline()
        if newline is None and self._pools:
            raise ModelError(f"{self.path}: lacks v.image_newline; convert the checkpoint again")
        return newline if newline is not None else np.zeros(self.text.n_embd, np.float32)

    # --- facts ---

    @property
    def handle(self) -> Any:
        if not self._ctx:
            raise NativeError("the vision tower is closed")
        return self._ctx

    # --- plan ---

    def plan(self, rendered: str, media: Sequence[Video | Image], tokens: VisualTokenConfig) -> tuple[list[Piece], Any]:
        if self._foreign:
            return self._foreign.plan(rendered, media, tokens.merge_retain)
        return super().plan(rendered, media, tokens)

    # --- encode ---

    def encode(
        self, piece: MediaPiece, item: Video | Image, tokens: VisualTokenConfig, keep: Any, stats: Stats, step: Step
    ) -> VisualBlock:
        """Visual tokens of one piece; `step` is called after every encoder run."""
        if self._foreign:
            check_similarity(tokens, "this vision tower")
            with stats.timed("vision"):
                block = self._foreign.encode(piece, keep, tokens.merge_retain)
            step()
            return block
        if isinstance(item, Video):
            return self._encode_video(piece, item, tokens, stats, step)
        return self._encode_image(piece, item, tokens, stats, step)

    def _encode_tiles(self, tiles: NDArray[np.uint8], stats: Stats, step: Step) -> list[Rows]:
        rows = []
        for tile in tiles:
            with stats.timed("vision"):
                rows.append(self._tiles.encode(tile))
            step()
        return rows

    def _encode_video(
        self, piece: MediaPiece, item: Video, tokens: VisualTokenConfig, stats: Stats, step: Step
    ) -> VisualBlock:
        with stats.timed("preprocess"):
            tiles = video_frames(item.frames, self._pixels)
        rows: list[Rows] = []
        groups: list[TokenGroup] = []
        grids: list[TokenGrid] = []
        height, width = item.frames.shape[1:3] if self._pools else (1, 1)  # the others cut a square out
        for frame, tile in enumerate(tiles):
            (patches,) = self._encode_tiles(tile[None], stats, step)
            with stats.timed("merge"):
                pooled = pool_rows(patches, self._tiles.patches_per_side) if self._pools else patches
                found = merged(pooled, tokens)
            thumb = self._thumbs.whole(tile, height, width)
            when = int(item.indices[frame]), float(item.timestamps[frame])
            owners = square(found.owners) + np.int32(len(groups))
            grids.append(TokenGrid(piece.media, frame, "frame", thumb, owners, *when))
            rows.append(found.rows)
            groups += [TokenGroup(piece.media, frame, int(slot)) for slot in found.slots]
        if self._pools:
            rows.append(self._newline[None])
            groups.append(TokenGroup(piece.media, _NEWLINE, _NEWLINE))
        return VisualBlock(np.concatenate(rows), groups, grids=grids)

    def _encode_image(
        self, piece: MediaPiece, item: Image, tokens: VisualTokenConfig, stats: Stats, step: Step
    ) -> VisualBlock:
        if self._pools:
            check_similarity(tokens, "pictures of any resolution")
        with stats.timed("preprocess"):
            tiles = image_tiles(item.pixels, self._pixels)
        encoded = self._encode_tiles(tiles, stats, step)
        if not self._pools:
            with stats.timed("merge"):
                found = merged(encoded[0], tokens)
            grid = TokenGrid(piece.media, 0, "image", self._thumbs.whole(tiles[0], 1, 1), square(found.owners))
            groups = [TokenGroup(piece.media, 0, int(slot)) for slot in found.slots]
            return VisualBlock(found.rows, groups, grids=[grid])
        plan = self._image_plan(item)
        with stats.timed("merge"):
            packed = anyres_pack(plan, np.stack(encoded), self._newline, tokens.merge_retain)
        n_base = self._tiles.patches_per_side**2
        groups = [_image_group(piece.media, int(slot), n_base) for slot in packed.slots]
        return VisualBlock(packed.rows, groups, grids=self._anyres_grids(piece.media, item, plan, tiles, packed.owners))

    def _anyres_grids(
        self, media: int, item: Image, plan: AnyresPlan, tiles: NDArray[np.uint8], owners: NDArray[np.int32]
    ) -> list[TokenGrid]:
        height, width = item.pixels.shape[:2]
        n_base = plan.patches**2
        base = self._thumbs.whole(tiles[0], height, width)
        grid = owners[n_base:].reshape(plan.grid_h, plan.grid_w)
        return [
            TokenGrid(media, 0, "base view", base, square(owners[:n_base])),
            TokenGrid(media, 1, "tile grid", self._thumbs.grid(tiles[1:], plan), grid),
        ]

    def close(self) -> None:
        if self._ctx:
            mtmd.mtmd_free(self._ctx)
            self._ctx = None


def _image_group(media: int, slot: int, n_base: int) -> TokenGroup:
    """Frame 0 is the base view, frame 1 the tiles' grid."""
    if slot < 0:
        return TokenGroup(media, 1, _NEWLINE)
    return TokenGroup(media, 0, slot) if slot < n_base else TokenGroup(media, 1, slot - n_base)
