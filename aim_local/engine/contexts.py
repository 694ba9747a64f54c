"""A context whose layers keep fewer and fewer visual tokens: staged prefill over pieces, room kept apart for text.

The native mechanism is _staged.py; which share each layer keeps is the planner's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..config import VisualTokenConfig
from ..errors import ContextError, UsageError
from ..models.pieces import Piece, TextPiece, VisualBlock
from ..native.library import llama
from ..native.llama import Context, Mark, TextModel, thread_count
from ..native.staged import ROW_TOKEN, ROW_VISUAL, StagedContext, StageInfo, StagePlan
from ..reduction.planner import layer_counts, stage_begins
from ..results import Trace

OnLayers = Callable[[int, int], None]


class PrunedContext(Context):
    """A Context with one KV cache per stage of layers.

    shares: share of visual tokens that enters each layer. n_text, n_visual: room for text tokens, and for visual tokens
    of the first layer; a stage with share r has n_text + floor(n_visual * r) cells (a little more with several media).
    """

    def __init__(self, model: TextModel, shares: Sequence[float], n_text: int, n_visual: int) -> None:
        self.model, self.shares = model, list(shares)
        self.n_past = self.n_cells = self.n_visual = 0
        self.n_text_room, self.n_visual_room = n_text, n_visual
        self._begins = stage_begins(self.shares)
        counts = layer_counts(n_visual, self.shares)
        plan = StagePlan(tuple(self._begins), tuple(n_text + counts[il] for il in self._begins))
        config = model.config
        self._staged = StagedContext(
            model.handle,
            plan,
            n_ubatch=config.n_ubatch,
            n_batch=config.n_ubatch,
            n_threads=thread_count(config.n_threads, model.n_embd),
            type_k=config.type_k,
            type_v=config.type_v,
            flash_attn=None if config.flash_attn == "auto" else bool(config.flash_attn),
        )
        self._ctx = self._staged.ctx
        self.n_ctx = n_text + n_visual
        self.n_batch = int(llama.llama_n_batch(self._ctx))

    def _check_room(self, n: int) -> None:
        used = self.n_cells - self.n_visual
        if used + n > self.n_text_room:
            raise ContextError(
                f"the context is full: {used} of {self.n_text_room} text tokens used, {n} more needed; "
                "start over (/reset) or load with a larger --ctx"
            )

    def fits(self, n_text: int, n_visual: int) -> bool:
        """Whether so many more tokens fit."""
        text = self.n_cells - self.n_visual + n_text
        return text <= self.n_text_room and self.n_visual + n_visual <= self.n_visual_room

    def larger(self, n_ctx: int, n_visual: int) -> PrunedContext:
        n_visual += self.n_visual
        return PrunedContext(self.model, self.shares, max(self.n_text_room, n_ctx - n_visual), n_visual)

    def kv_bytes(self) -> int:
        return sum(stage.kv_bytes for stage in self.stages())

    def stages(self) -> list[StageInfo]:
        return self._staged.stages()

    def prefill(self, pieces: Sequence[Piece], blocks: dict[int, VisualBlock], tokens: VisualTokenConfig) -> None:
        """Appends text and visual tokens, pruned from stage to stage; logits can be read afterwards.

        blocks: visual rows by piece index. A failure, also of the importance callable, leaves the context as it was.
        """
        kinds: list[int] = []
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            if isinstance(piece, TextPiece):
                kinds += [ROW_TOKEN] * piece.n
                ids += piece.tokens
            else:
                n = len(blocks[i].rows)
                kinds += [ROW_VISUAL] * n
                ids += [0] * n
        n_visual = kinds.count(ROW_VISUAL)
        counts = layer_counts(n_visual, self.shares)
        rows = np.concatenate([block.rows for block in blocks.values()]) if blocks else None
        how = tokens.importance
        self._staged.prefill(
            kinds,
            ids,
            rows,
            [counts[il] for il in self._begins],
            importance=how if isinstance(how, str) else "pagerank",
            seed=tokens.seed,
            select=None if isinstance(how, str) else how,
        )
        self.n_past += len(kinds)
        self.n_cells += len(kinds)
        self.n_visual += n_visual

    def trace(self, trace: Trace) -> None:
        """Writes what the last prefill kept and scored."""
        trace.kept = [self._staged.kept(il) for il in range(self.model.n_layer)]
        scores = {il: self._staged.importance(il) for il in range(self.model.n_layer)}
        trace.importance = {il: score for il, score in scores.items() if score is not None}

    def state(self) -> bytearray:
        return self._staged.state()

    def restore(self, state: bytearray, mark: Mark) -> None:
        self._staged.restore(state)
        self.n_past, self.n_cells, self.n_visual = mark.n_past, mark.n_cells, mark.n_visual

    def copy_from(self, other: Context) -> None:
        if not isinstance(other, PrunedContext) or other.shares != self.shares:
            raise UsageError("a pruned conversation can only move to a context with the same stages")
        super().copy_from(other)

    def close(self) -> None:
        self._staged.close()
        self._ctx = None
