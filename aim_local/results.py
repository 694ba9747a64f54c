"""What a run did and what it cost: counts, milliseconds per stage, and which visual tokens were kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# stages in the order they run; each has a field `<stage>_ms` in Stats
STAGES = ("decode_video", "preprocess", "vision", "merge", "prefill", "importance")


@dataclass
class Stats:
    """Counts and milliseconds of one prefill or answer. `prefill_ms` includes `importance_ms`."""

    n_frames: int = 0
    n_images: int = 0
    n_text: int = 0  # text tokens of the prompt
    n_visual_full: int = 0  # visual tokens before token merging
    n_visual: int = 0  # visual tokens that enter the LLM
    n_prompt: int = 0  # rows the first layer computes
    n_ctx: int = 0  # cells of the context
    n_cached: int = 0  # media items whose encoding was reused
    decode_video_ms: float = 0.0
    preprocess_ms: float = 0.0
    vision_ms: float = 0.0
    merge_ms: float = 0.0
    prefill_ms: float = 0.0
    importance_ms: float = 0.0
    kv_bytes: int = 0
    flops: float = 0.0  # prefill of the language model, as in docs/method.md
    flops_full: float = 0.0  # the same prompt without merging and pruning
    ttft_ms: float = 0.0  # from the call to the first token
    n_generated: int = 0
    decode_ms: float = 0.0
    stop_reason: str = ""  # "eos", "length", "stop", "interrupted"

    @property
    def decode_tps(self) -> float:
        """Tokens a second after the first token; 0 when fewer than two were generated."""
        return (self.n_generated - 1) / (self.decode_ms / 1000) if self.n_generated > 1 and self.decode_ms > 0 else 0.0

    @property
    def prefill_tps(self) -> float:
        return self.n_prompt / (self.prefill_ms / 1000) if self.prefill_ms > 0 else 0.0

    @property
    def flops_share(self) -> float:
        return self.flops / self.flops_full if self.flops_full else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, derived rates included."""
        rates = {"decode_tps": self.decode_tps, "prefill_tps": self.prefill_tps, "flops_share": self.flops_share}
        return {**asdict(self), **rates}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to `<stage>_ms`."""
        name = f"{stage}_ms"
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + (time.perf_counter() - start) * 1000)


@dataclass(frozen=True)
class TokenGroup:
    """Where one visual token (after merging) comes from.

    media: index of the media item in the prompt; frame: frame or tile index, -1 for none (newline rows);
    slot: surviving raster slot in the frame's token grid, -1 for a newline row.
    """

    media: int
    frame: int
    slot: int


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """One picture the vision tower saw, and which visual token (after merging) covers each slot of its grid.

    media, frame: as in TokenGroup; name: "frame", "image", or "base view" and "tile grid" of one image.
    pixels: uint8 [h, w, 3], a thumbnail as it is displayed, of what the grid covers: its slots divide it evenly.
    owners: int32 [rows, cols], index into Trace.groups. Newline rows cover nothing and stand in no grid.
    index, timestamp: of a video frame in its source; -1 and NaN where there is none.
    """

    media: int
    frame: int
    name: str
    pixels: NDArray[np.uint8] = field(repr=False)
    owners: NDArray[np.int32] = field(repr=False)
    index: int = -1
    timestamp: float = math.nan


@dataclass
class Trace:
    """Which visual tokens were kept.

    kept: one per layer il, int32 [n_il], sorted indices of the post-merge visual tokens that enter layer il.
    importance: il -> float32 [n visual tokens present in layer il], where scored.
    groups: per post-merge visual token, where it comes from.
    grids: the pictures and which token covers what; empty without pictures, and for towers that mtmd runs.
    """

    kept: list[NDArray[np.int32]] = field(default_factory=list)
    importance: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    groups: list[TokenGroup] = field(default_factory=list)
    grids: list[TokenGrid] = field(default_factory=list)

    def add(self, groups: Sequence[TokenGroup], grids: Sequence[TokenGrid]) -> None:
        """Appends one media piece; owners of its grids count from the piece's first token."""
        n = np.int32(len(self.groups))
        self.grids += [replace(grid, owners=grid.owners + n) for grid in grids]
        self.groups += groups

    def to_image(self, il: int) -> NDArray[np.uint8]:
        """Contact sheet of what entered layer il, uint8 RGB [H, W, 3]: kept patches bright, dropped ones veiled.

        Raises UsageError for a layer the model does not have, and where nothing was seen.
        """
        from .drawing.sheet import layer_sheet

        return layer_sheet(self, il)
