"""Any other mmproj that llama.cpp runs: tokenised, encoded and, where needed, decoded by mtmd itself.

Each frame of a video is one picture. Begin and end tokens around media are mtmd's. Token merging works where visual
tokens are plain rows at consecutive positions; M-RoPE and non-causal media are decoded by mtmd, unmerged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from ..config import VisualTokenConfig
from ..errors import ModelError, UsageError
from ..media import Image, MediaShape, Video
from ..native.mtmd import Chunks, ImageChunk, MtmdContext, TextChunk, decode_chunk, encode_chunk
from ..reduction.merging import merged, refuse_baselines, refuse_window
from ..reduction.planner import merge_count
from .base import Fit, Frame, TileRows, TowerFacts, TowerFile
from .keys import refuse_keys
from .pieces import Decode, Part, Rows, TokenGroup, VisualBlock, VisualPart
from .tiles import Clock

_FRAMES = 8  # every frame is a whole picture
_PROBE_PX = 64  # side of the black picture that tells how a tower's tokens stand


class MtmdTower:
    """A tower whose tokens depend on the loaded file. Raises ModelError for counts where it is not loaded."""

    reduces_by_default = False
    chat_template: str | None = None
    sees_any_size = False  # mtmd decides, and cannot be asked for less
    patch_px = 0  # frames are not fitted here, so noise cannot be told patch by patch

    def __init__(self, file: TowerFile) -> None:
        self.file = file
        self._context = file.open()
        self._chunks_of = lru_cache(maxsize=64)(self._blank_chunks)

    @property
    def projector(self) -> str:
        return self.file.projector

    @property
    def precision(self) -> str:
        return self.file.precision

    @property
    def frame_rows(self) -> Callable[[Frame], Rows] | None:
        return None

    @property
    def default_frames(self) -> int:
        return self.file.number("aim.video.n_frames", _FRAMES)

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        return None

    def fit_for(self, shape: MediaShape) -> Fit | None:
        return None

    def rows_of_tiles(self, shape: MediaShape) -> list[int]:
        return []

    @property
    def facts(self) -> TowerFacts | None:
        return None

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return None

    @property
    def context(self) -> MtmdContext:
        if self._context is None:
            raise ModelError(
                f"{self.file.path}: the visual tokens of projector {self.projector!r} are known to the loaded tower "
                "only; use `aim-local chat --stats` instead"
            )
        return self._context

    @property
    def unreduced(self) -> str:
        """Why a video's visual tokens are not reduced unless asked, and what can be done; it asks the loaded tower."""
        what = f"its projector {self.projector!r} has no family of its own here, so every frame is one whole picture"
        chunks = self._chunks_of("image", 1, _PROBE_PX, _PROBE_PX)
        if any(isinstance(chunk, ImageChunk) and chunk.decodes_itself for chunk in chunks):
            return f"{what}, at positions (M-RoPE) or with a mask of its own that rule merging and pruning out"
        return f"{what}; tokens=merge-only merges them when asked"

    # --- counts ----------------------------------------------------------------------------------------------------

    def count(self, shape: MediaShape, retain: float) -> int:
        return sum(part.n for part in self.layout(shape, retain) if isinstance(part, VisualPart))

    def n_tiles(self, shape: MediaShape) -> int:
        return shape.n_frames

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        chunks = self._chunks_of(shape.kind, shape.n_frames, shape.height, shape.width)
        return [chunk.tokens if isinstance(chunk, TextChunk) else self._part(chunk, retain) for chunk in chunks]

    def _part(self, chunk: ImageChunk, retain: float) -> VisualPart:
        if not chunk.decodes_itself:
            return VisualPart(merge_count(chunk.n_rows, retain), chunk.n_rows)
        if retain < 1:
            raise UsageError(
                "token merging is not available for this vision tower (M-RoPE or non-causal visual tokens); "
                "set merge_retain=1.0"
            )
        return VisualPart(chunk.n_rows, chunk.n_rows)

    def _blank_chunks(self, kind: str, n_frames: int, height: int, width: int) -> list[TextChunk | ImageChunk]:
        """Counts follow from sizes alone: mtmd is asked with black pictures."""
        blank = np.zeros((height, width, 3), np.uint8)
        chunks = Chunks(self.context, [blank] * n_frames, is_video=kind == "video")
        try:
            return [replace(c, handle=None) if isinstance(c, ImageChunk) else c for c in chunks.chunks]
        finally:
            chunks.close()

    @property
    def gives_rotary_ids(self) -> bool:
        return False

    def merged_together(self, shape: MediaShape, window: int) -> list[int]:
        """mtmd's chunks; there are no windows (check_merging)."""
        del window
        return [part.n_full for part in self.layout(shape, 1.0) if isinstance(part, VisualPart)]

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        """Squares are unknown here, and mtmd writes text around each frame."""
        refuse_keys(tokens, "this model")
        refuse_baselines(tokens, "this vision tower")
        if shape.kind == "video":
            refuse_window(tokens, "this vision tower")

    # --- encoding --------------------------------------------------------------------------------------------------

    def encode(
        self, item: Video | Image, tokens: VisualTokenConfig, wanted: Sequence[int], tile_rows: TileRows
    ) -> list[VisualBlock]:
        pictures = list(item.frames) if isinstance(item, Video) else [item.pixels]
        chunks = Chunks(self.context, pictures, is_video=isinstance(item, Video))
        images = [chunk for chunk in chunks.chunks if isinstance(chunk, ImageChunk)]
        # a chunk is one picture where there are as many: mtmd may cut a picture, or put two frames together
        shown = dict(enumerate(pictures)) if len(images) == len(pictures) else {}
        return [self._block(chunks, images[i], i, shown.get(i), tokens, tile_rows) for i in wanted]

    def _block(
        self,
        chunks: Chunks,
        chunk: ImageChunk,
        part: int,
        pixels: Frame | None,
        tokens: VisualTokenConfig,
        tile_rows: TileRows,
    ) -> VisualBlock:
        clock, context = Clock(), self.context
        rows = tile_rows(part, pixels, partial(encode_chunk, context, chunk, self.file.text.n_embd))
        if chunk.decodes_itself:
            groups = tuple(TokenGroup(0, part, slot) for slot in range(chunk.n_rows))
            return VisualBlock(rows, groups, ms=clock.ms, decode=_decoder(context, chunks, chunk, rows))
        with clock.timed("merge"):
            found = merged(rows, tokens)
        groups = tuple(TokenGroup(0, part, int(slot)) for slot in found.slots)
        return VisualBlock(found.rows, groups, ms=clock.ms, sizes=found.sizes)

    def close(self) -> None:
        self._chunks_of.cache_clear()
        if self._context:
            self._context.close()
            self._context = None


def _decoder(context: MtmdContext, chunks: Chunks, chunk: ImageChunk, rows: Rows) -> Decode:
    def decode(llama_context: object, position: int, n_batch: int) -> int:
        assert chunks, "owns the chunk's memory"
        return decode_chunk(context, llama_context, chunk, rows, position, n_batch)

    return decode
