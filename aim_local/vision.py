"""The vision tower: media in, visual tokens out, merged where asked; counts known before anything is encoded.

Two ways: towers we run tile by tile (LLaVA-OneVision, LLaVA-1.5) and foreign ones that mtmd runs (foreign.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _logs
from ._native import mtmd
from ._vision_native import AnyresPlan, TileEncoder, anyres_pack, merge_count, merge_rows, pool_rows, pool_side
from .blocks import MediaPiece, Piece, TextPiece, VisualBlock
from .config import VisualTokenConfig
from .errors import ModelError, NativeError
from .foreign import ForeignTower
from .media import Image, Video
from .preprocess import PreprocessConfig, image_tiles, plan_image, video_frames
from .prompt import split_marks
from .stats import Stats, TokenGroup
from .text import FLASH_ATTN, TextModel, read_whole, thread_count

_FOREIGN_FRAMES = 8  # every frame is a whole picture there
_MANY_TOKENS = 64  # per frame; the paper's setting was found at 196
_NEWLINE = -1

Rows = NDArray[np.float32]
Step = Callable[[], None]


class VisionTower:
    """A loaded mmproj beside its text model. `close()` frees it."""

    def __init__(self, path: Path, text: TextModel) -> None:
        self.path, self.text = path, text
        self.metadata = read_whole(path).metadata
        self._check_fit()
        width = int(self.metadata.get("clip.vision.embedding_length", 0))
        self._n_threads = thread_count(text.config.n_threads, width)
        self._ctx = self._open()
        self.is_foreign = not TileEncoder.supports(self._ctx)
        self._foreign = ForeignTower(self._ctx, text.n_embd) if self.is_foreign else None
        if not self.is_foreign:
            self._tiles = TileEncoder(self._ctx, self._n_threads)
            self._pixels = PreprocessConfig.from_metadata(self.metadata)
            self._newline = self._read_newline()

    def _check_fit(self) -> None:
        """Refuses what mtmd would refuse with less to go on."""
        found = str(self.metadata.get("general.architecture", ""))
        if found != "clip":
            raise ModelError(f"{self.path}: is a {found or 'nameless'} language model, not a mmproj; give it as model")
        width = self.metadata.get("clip.vision.projection_dim")
        if width and self.projector in ("mlp", "llava_onevision") and width != self.text.n_embd:
            raise ModelError(
                f"{self.path}: makes visual tokens of width {width}, {self.text.path} takes {self.text.n_embd}; "
                "take the mmproj that was converted with this model"
            )

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

    @property
    def projector(self) -> str:
        return str(self.metadata.get("clip.projector_type", ""))

    @property
    def default_frames(self) -> int:
        return int(self.metadata.get("aim.video.n_frames", _FOREIGN_FRAMES if self.is_foreign else 32))

    @property
    def reduces_by_default(self) -> bool:
        """Whether a video's visual tokens are reduced when nothing is asked.

        Yes for the paper's video model; no where a frame has few tokens to begin with, as in the demo model.
        """
        return self._pools and pool_side(self._tiles.patches_per_side) ** 2 >= _MANY_TOKENS

    @property
    def media_tokens(self) -> tuple[str, str]:
        """What the chat template writes for an image and for a video ("" where it writes none)."""
        image = str(self.metadata.get("aim.image_token", "<image>"))
        return image, str(self.metadata.get("aim.video_token", ""))

    @property
    def _pools(self) -> bool:
        return self.projector == "llava_onevision"

    # --- plan ---

    def plan(self, rendered: str, media: Sequence[Video | Image], tokens: VisualTokenConfig) -> tuple[list[Piece], Any]:
        """Pieces of a rendered prompt with their counts, and what must be kept alive with them."""
        if self._foreign:
            return self._foreign.plan(rendered, media, tokens.merge_retain)
        pieces: list[Piece] = []
        for part in split_marks(rendered):
            if isinstance(part, int):
                full, kept = self.count(media[part], 1.0), self.count(media[part], tokens.merge_retain)
                pieces.append(MediaPiece(part, kept, full))
            else:
                pieces.append(TextPiece(self.text.tokenize(part, start=not pieces)))
        return pieces, None

    def count(self, item: Video | Image, retain: float) -> int:
        """Visual tokens of a media item after token merging, newline rows included."""
        patches = self._tiles.patches_per_side
        if isinstance(item, Video):
            side = pool_side(patches) if self._pools else patches
            return len(item.frames) * merge_count(side * side, retain) + (1 if self._pools else 0)
        if self._pools:
            return self._image_plan(item).count(retain)
        return merge_count(patches * patches, retain)

    def n_tiles(self, item: Video | Image, piece: MediaPiece) -> int:
        """Encoder runs a piece takes."""
        if self._foreign:
            return 1
        if isinstance(item, Video):
            return len(item.frames)
        if not self._pools:
            return 1
        return self._image_plan(item).n_tiles

    def _image_plan(self, item: Image) -> AnyresPlan:
        height, width = item.pixels.shape[:2]
        return plan_image(height, width, self._pixels, self._tiles.patches_per_side)

    # --- encode ---

    def encode(
        self, piece: MediaPiece, item: Video | Image, tokens: VisualTokenConfig, keep: Any, stats: Stats, step: Step
    ) -> VisualBlock:
        """Visual tokens of one piece; `step` is called after every encoder run."""
        if self._foreign:
            with stats.timed("vision"):
                block = self._foreign.encode(piece, keep, tokens.merge_retain)
            step()
            return block
        if isinstance(item, Video):
            return self._encode_video(piece, item, tokens.merge_retain, stats, step)
        return self._encode_image(piece, item, tokens.merge_retain, stats, step)

    def _encode_tiles(self, tiles: NDArray[np.uint8], stats: Stats, step: Step) -> list[Rows]:
        rows = []
        for tile in tiles:
            with stats.timed("vision"):
                rows.append(self._tiles.encode(tile))
            step()
        return rows

    def _encode_video(self, piece: MediaPiece, item: Video, retain: float, stats: Stats, step: Step) -> VisualBlock:
        with stats.timed("preprocess"):
            tiles = video_frames(item.frames, self._pixels)
        rows: list[Rows] = []
        groups: list[TokenGroup] = []
        for frame, tile in enumerate(tiles):
            (patches,) = self._encode_tiles(tile[None], stats, step)
            with stats.timed("merge"):
                pooled = pool_rows(patches, self._tiles.patches_per_side) if self._pools else patches
                merged = merge_rows(pooled, retain)
            rows.append(merged.rows)
            groups += [TokenGroup(piece.media, frame, int(slot)) for slot in merged.slots]
        if self._pools:
            rows.append(self._newline[None])
            groups.append(TokenGroup(piece.media, _NEWLINE, _NEWLINE))
        return VisualBlock(np.concatenate(rows), groups)

    def _encode_image(self, piece: MediaPiece, item: Image, retain: float, stats: Stats, step: Step) -> VisualBlock:
        with stats.timed("preprocess"):
            tiles = image_tiles(item.pixels, self._pixels)
        encoded = self._encode_tiles(tiles, stats, step)
        if not self._pools:
            with stats.timed("merge"):
                merged = merge_rows(encoded[0], retain)
            return VisualBlock(merged.rows, [TokenGroup(piece.media, 0, int(slot)) for slot in merged.slots])
        with stats.timed("merge"):
            packed = anyres_pack(self._image_plan(item), np.stack(encoded), self._newline, retain)
        n_base = self._tiles.patches_per_side**2
        groups = [_image_group(piece.media, int(slot), n_base) for slot in packed.slots]
        return VisualBlock(packed.rows, groups)

    def close(self) -> None:
        if self._ctx:
            mtmd.mtmd_free(self._ctx)
            self._ctx = None


def _image_group(media: int, slot: int, n_base: int) -> TokenGroup:
    """Frame 0 is the base view, frame 1 the tiles' grid."""
    if slot < 0:
        return TokenGroup(media, 1, _NEWLINE)
    return TokenGroup(media, 0, slot) if slot < n_base else TokenGroup(media, 1, slot - n_base)
