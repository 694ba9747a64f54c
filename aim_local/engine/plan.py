"""One pass over a prompt: read media, plan, check the room, encode, prefill, generate.

Collects stats, trace and warnings on the way. Knows the order of the stages; each stage's work is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..config import GenerateConfig, VisualTokenConfig
from ..errors import ContextError, ModelError, UsageError
from ..media import FrameSampling, Image, Video, open_media
from ..models.pieces import MediaPiece, Piece, TextPiece, VisualBlock, count_text, count_visual, count_visual_full
from ..models.prompt import MediaKind
from ..native.llama import Context, padded_cells
from ..native.staged import unsupported_reason
from ..reduction.planner import layer_counts, layer_shares, prefill_flops, resolve_budget
from ..results import Stats, Trace
from .contexts import PrunedContext
from .generate import Generated, OnDraw, OnText, generate

if TYPE_CHECKING:
    from ..llm import VisionLLM
    from ..models.tiles import VisionTower

Media = str | Path | NDArray[np.uint8]
Progress = Callable[[str, int, int], None]  # (stage, done, total), stage is "decode_video", "vision" or "prefill"


@dataclass
class Prefill:
    """A prompt that went through the model. logits: float32 [n_vocab], for the next token."""

    logits: NDArray[np.float32] = field(repr=False)
    trace: Trace = field(repr=False)
    stats: Stats
    warnings: list[str] = field(default_factory=list)


@dataclass
class Answer:
    """text: what the model said. tokens: its ids, without the end-of-turn token.

    warnings: what was asked and could not be done as asked.
    """

    text: str
    tokens: list[int] = field(repr=False)
    stats: Stats
    trace: Trace = field(repr=False)
    warnings: list[str] = field(default_factory=list)


@dataclass
class PromptPlan:
    """A prompt before anything expensive: its pieces and what they count."""

    pieces: list[Piece]
    keep: Any = None  # owner of foreign chunks

    @property
    def n(self) -> int:
        return sum(p.n for p in self.pieces)

    @property
    def media(self) -> bool:
        return any(isinstance(p, MediaPiece) for p in self.pieces)


def media_kind(item: Video | Image) -> MediaKind:
    return "video" if isinstance(item, Video) else "image"


class Run:
    """One pass over a prompt: read media, plan, encode, prefill, generate; collects stats, trace and warnings."""

    def __init__(
        self,
        llm: VisionLLM,
        tokens: VisualTokenConfig | None,
        sampling: FrameSampling | None,
        progress: Progress | None,
        media: list[Video | Image] | None = None,
    ) -> None:
        self.llm, self.sampling, self.progress = llm, sampling, progress
        if tokens is not None:
            check_tokens(llm, tokens)
        self.asked = tokens
        self.tokens = VisualTokenConfig.off()  # what is done, known with the plan
        self.shares = [1.0] * llm.text.n_layer  # of visual tokens entering each layer
        self.stats, self.trace = Stats(), Trace()
        self.warnings: list[str] = []
        self.media = media if media is not None else []  # of the whole conversation

    # --- media ---

    def read(self, items: Sequence[Media]) -> None:
        """Decodes media and appends them."""
        if not len(items):
            return
        if not self.llm.vision:
            raise ModelError(
                f"{self.llm.name} is a text-only model, it cannot take a video or picture; load it with its mmproj, "
                "or take another model"
            )
        if isinstance(items, (str, Path, np.ndarray)):
            raise UsageError("media is one item; give a list of paths or arrays")
        sampling = self.sampling or FrameSampling(n_frames=self.llm.default_frames)
        for item in items:
            with self.stats.timed("decode_video"):
                found = open_media(item, sampling, progress=self._stage("decode_video"))
            self.warnings += found.warnings
            self.media.append(found)
            if isinstance(found, Video):
                self.stats.n_frames += len(found.frames)
            else:
                self.stats.n_images += 1

    def media_refs(self, first: int) -> list[tuple[int, MediaKind]]:
        return [(i, media_kind(self.media[i])) for i in range(first, len(self.media))]

    def _stage(self, stage: str) -> Callable[[int, int], None] | None:
        if not self.progress:
            return None
        progress = self.progress
        return lambda done, total: progress(stage, done, total)

    # --- prompt ---

    def plan(self, rendered: str) -> PromptPlan:
        """Pieces and counts of a rendered prompt; settles which visual tokens are kept."""
        if self.llm.vision:
            pieces, keep = self._plan_media(self.llm.vision, rendered)
        else:
            pieces, keep = [TextPiece(self.llm.text.tokenize(rendered, start=True))], None
        if not pieces or not isinstance(pieces[-1], TextPiece):
            raise UsageError("the prompt ends with a media item; put some text after it, such as the question")
        return PromptPlan(pieces, keep)

    def _plan_media(self, vision: VisionTower, rendered: str) -> tuple[list[Piece], Any]:
        asked = self.asked if self.asked is not None else default_tokens(self.llm, self.media)
        if asked.flops_share is not None:
            pieces, _ = vision.plan(rendered, self.media, VisualTokenConfig.off())
            asked = self._within_budget(vision, pieces, asked, asked.flops_share)
        self.tokens = asked
        if self.media:
            self.shares = layer_shares(asked, self.llm.text.n_layer)
        return vision.plan(rendered, self.media, asked)

    def _within_budget(
        self, vision: VisionTower, pieces: list[Piece], asked: VisualTokenConfig, share: float
    ) -> VisualTokenConfig:
        shown = [self.media[p.media] for p in pieces if isinstance(p, MediaPiece)]

        def count(retain: float) -> int:
            return sum(vision.count(item, retain) for item in shown)

        shape, n_text = self.llm.text.shape, count_text(pieces)
        found = resolve_budget(share, shape, n_text, count_visual_full(pieces), count)
        return replace(found, importance=asked.importance, seed=asked.seed)

    @property
    def prunes(self) -> bool:
        return min(self.shares) < 1

    def start(self, rendered: str, n_answer: int) -> Context:
        """A new context with the prompt in it; room for n_answer tokens."""
        plan = self.plan(rendered)
        context = self.open(plan, context_size(self.llm, plan, n_answer) - count_visual(plan.pieces))
        try:
            self.append(context, plan)
        except BaseException:
            context.close()
            raise
        return context

    def open(self, plan: PromptPlan, n_text: int) -> Context:
        """An empty context with room for the plan's visual tokens and n_text text tokens."""
        n_visual = count_visual(plan.pieces)
        if self.prunes:
            return PrunedContext(self.llm.text, self.shares, n_text, n_visual)
        return Context(self.llm.text, n_text + n_visual)

    def append(self, context: Context, plan: PromptPlan) -> list[int]:
        """Encodes the plan's media and decodes all pieces; logits of the last token can be read afterwards.

        Returns how far each text token and each media piece moved the next position.
        """
        self._count(plan)
        blocks = self._encode(plan)
        with self.stats.timed("prefill"):
            if isinstance(context, PrunedContext) and blocks:
                positions = self._append_pruned(context, plan, blocks)
            else:
                positions = self._append_pieces(context, plan, blocks)
        self.stats.n_ctx, self.stats.kv_bytes = context.n_ctx, context.kv_bytes()
        self._count_flops(plan)
        return positions

    def _append_pruned(self, context: PrunedContext, plan: PromptPlan, blocks: dict[int, VisualBlock]) -> list[int]:
        if any(block.chunk is not None for block in blocks.values()):
            raise UsageError(
                "pruning is not available for this vision tower (M-RoPE or non-causal visual tokens); "
                "set prune_layers=None"
            )
        context.prefill(plan.pieces, blocks, self.tokens)
        if self.progress:
            self.progress("prefill", plan.n, plan.n)
        context.trace(self.trace)
        self.stats.importance_ms += sum(stage.importance_ms for stage in context.stages())
        return [n for p in plan.pieces for n in ([1] * p.n if isinstance(p, TextPiece) else [p.n])]

    def _append_pieces(self, context: Context, plan: PromptPlan, blocks: dict[int, VisualBlock]) -> list[int]:
        done, positions = 0, list[int]()
        for i, piece in enumerate(plan.pieces):
            before = context.n_past
            self._append_piece(context, piece, blocks.get(i), i + 1 == len(plan.pieces), done, plan.n)
            positions += [1] * piece.n if isinstance(piece, TextPiece) else [context.n_past - before]
            done += piece.n
        self.trace.kept = [np.arange(len(self.trace.groups), dtype=np.int32)] * self.llm.text.n_layer
        return positions

    def _count_flops(self, plan: PromptPlan) -> None:
        """Prefill FLOPs of the language model, of what was appended."""
        shape, n_text = self.llm.text.shape, count_text(plan.pieces)
        counts = layer_counts(count_visual(plan.pieces), self.shares)
        self.stats.flops += prefill_flops(shape, n_text, counts)
        self.stats.flops_full += prefill_flops(shape, n_text, [count_visual_full(plan.pieces)] * shape.n_layer)

    def _count(self, plan: PromptPlan) -> None:
        self.stats.n_text += count_text(plan.pieces)
        self.stats.n_visual += count_visual(plan.pieces)
        self.stats.n_visual_full += count_visual_full(plan.pieces)
        self.stats.n_prompt += plan.n

    def _encode(self, plan: PromptPlan) -> dict[int, VisualBlock]:
        """Visual rows of every media piece, by piece index."""
        if not self.llm.vision:
            return {}
        vision, blocks = self.llm.vision, {}
        pieces = [(i, p) for i, p in enumerate(plan.pieces) if isinstance(p, MediaPiece)]
        total = sum(vision.n_tiles(self.media[p.media]) for _, p in pieces)
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if self.progress:
                self.progress("vision", done, total)

        for i, piece in pieces:
            blocks[i] = vision.encode(piece, self.media[piece.media], self.tokens, plan.keep, self.stats, step)
            self.trace.add(blocks[i].groups, blocks[i].grids)
        return blocks

    def _append_piece(
        self, context: Context, piece: Piece, block: VisualBlock | None, last: bool, done: int, total: int
    ) -> None:
        def step(part: int, _n: int) -> None:
            if self.progress:
                self.progress("prefill", done + part, total)

        if isinstance(piece, TextPiece):
            context.decode_tokens(piece.tokens, logits=last, progress=step)
        elif block and block.chunk is not None and self.llm.vision:
            context.decode_chunk(self.llm.vision.handle, block.chunk, block.rows)
        elif block:
            context.decode_rows(block.rows, progress=step)

    def generate(
        self,
        context: Context,
        config: GenerateConfig,
        on_text: OnText | None,
        start: float,
        on_draw: OnDraw | None = None,
    ) -> Generated:
        generated = generate(self.llm.text, context, config, self.stats, on_text, start, on_draw)
        if self.stats.stop_reason == "length" and self.stats.n_generated < config.max_tokens:
            self.warnings.append(
                f"the answer was cut: the context of {context.n_ctx} tokens is full; use a larger n_ctx"
            )
        return generated


def check_tokens(llm: VisionLLM, tokens: VisualTokenConfig) -> None:
    """Raises UsageError or ModelError for a setting this model cannot do, before anything is computed."""
    if not tokens.prunes:
        return
    reason = unsupported_reason(llm.text.handle)
    if reason:
        raise ModelError(
            f"visual tokens cannot be pruned inside {llm.name}: {reason}; use --prune off (prune_layers=None)"
        )
    if tokens.flops_share is None:
        layer_shares(tokens, llm.text.n_layer)


def default_tokens(llm: VisionLLM, media: Sequence[Video | Image]) -> VisualTokenConfig:
    """What is done when nothing is asked: the paper's setting for videos where it is possible, nothing for pictures."""
    video = any(isinstance(item, Video) for item in media)
    if not video or llm.vision is None or not llm.vision.reduces_by_default:
        return VisualTokenConfig.off()
    try:
        check_tokens(llm, VisualTokenConfig.paper())
    except (UsageError, ModelError):  # another architecture, or too few layers for the schedule
        return VisualTokenConfig.off()
    return VisualTokenConfig.paper()


def context_size(llm: VisionLLM, plan: PromptPlan, n_answer: int) -> int:
    """Cells for a prompt and its answer. Raises ContextError saying how many are needed and how to fit."""
    need = plan.n + 1
    asked = llm.config.n_ctx
    limit = asked or llm.n_ctx_train
    if need > padded_cells(limit):
        raise ContextError(too_small(llm, plan, limit, asked is not None))
    return asked or min(llm.n_ctx_train, plan.n + n_answer + 1)


def too_small(llm: VisionLLM, plan: PromptPlan, limit: int, asked: bool) -> str:
    visual = count_visual(plan.pieces)
    what = f"the prompt needs {plan.n + 1} tokens, {visual} of them visual; "
    trained = f"{llm.name} was trained for {llm.n_ctx_train}"
    if not asked:
        fit = trained
    elif plan.n < llm.n_ctx_train:
        fit = f"the context holds {limit}: load with n_ctx (--ctx) {plan.n + 1} or more"
    else:
        fit = f"the context holds {limit}, and {trained}"
    share = max(0, limit - 1 - count_text(plan.pieces)) / max(1, visual)
    return f"{what}{fit}, or take fewer frames (--frames): at most {share:.0%} of the visual tokens fit"
