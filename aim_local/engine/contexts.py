"""What holds a conversation's KV cache: one interface, a plain context, and one whose layers keep fewer and fewer rows.

Knows positions, cells and room. The native mechanisms are native/llama.py and native/staged.py; which share of the
visual tokens each layer keeps is the plan's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import ContextError, ModelError, NativeError, ServerLostError, UsageError
from ..models.pieces import Piece, Rotary, Rows, TextPiece, VisualBlock, count_visual
from ..models.text import TextModel
from ..native.kv_numbers import plain_is_finite, staged_is_finite
from ..native.llama import Decoder, LlamaContext, padded_cells
from ..native.staged import ROW_TOKEN, ROW_VISUAL, StagedContext, StageInfo, StagePlan, check_state
from ..reduction.planner import layer_counts, stage_begins
from .model import Model
from .plan import Plan
from .points import Mark, Points
from .watch import Watch

_TAIL = (
    16  # tokens at a prompt's end; a template may write those in front of an answer otherwise when it has been given
)
_POINTS = 3  # before the prompt, before its tail, behind it


@dataclass(frozen=True, eq=False)
class Appended:
    """What appending pieces did. positions: how far each text token and each media piece moved the next position.

    kept: per layer, which of the new visual tokens entered it; importance: il -> their scores, where scored.
    """

    positions: list[int]
    kept: list[NDArray[np.int32]]
    importance: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    importance_ms: float = 0.0


class Context(ABC):
    """Sequence 0 of a native context. What fails or is stopped leaves it as it was. `close()` frees it."""

    n_ctx: int  # cells of the first layer
    _native: LlamaContext | StagedContext

    def __init__(self, text: TextModel) -> None:
        self.text = text
        self.n_past = self.n_cells = self.n_visual = 0

    # --- what the kinds do differently -----------------------------------------------------------------------------

    @property
    @abstractmethod
    def decoder(self) -> Decoder:
        """What it does raises ClosedError when this is closed."""

    @property
    @abstractmethod
    def handle(self) -> Any:
        """The llama_context. Raises ClosedError when closed."""

    @abstractmethod
    def append(
        self,
        pieces: Sequence[Piece],
        blocks: Mapping[int, VisualBlock],
        tokens: VisualTokenConfig,
        watch: Watch,
        earlier: Sequence[Piece] = (),
        n_query: int = 0,
    ) -> Appended:
        """Decodes pieces; logits of the last token can be read afterwards. blocks: visual rows by piece index.

        earlier: all that the context holds, where its visual tokens are ranked again (see `can_rank_again`); kept and
        importance then count them, too. n_query: see Plan.
        """

    @abstractmethod
    def check_room(self, n: int) -> None:
        """Raises ContextError where n more text tokens do not fit."""

    @abstractmethod
    def fits(self, n_text: int, n_visual: int) -> bool:
        """Whether so many more tokens fit."""

    @abstractmethod
    def larger(self, n_ctx: int, n_visual: int) -> Self:
        """An empty context of the same kind with n_ctx cells, n_visual of them for more visual tokens."""

    @abstractmethod
    def kv_bytes(self) -> int:
        """Bytes of the KV cache, all cells."""

    @abstractmethod
    def state(self) -> bytearray:
        """The KV cache and its positions; `mark` says what they hold."""

    @abstractmethod
    def restore(self, state: bytearray, mark: Mark) -> None:
        """Takes the state of a context of the same kind into an empty one; it must fit."""

    def check_restored(self, state: bytearray) -> None:
        """After the state of a file was restored, which anybody may have written. Raises NativeError, and is empty."""
        check_state(self.handle, self.n_past, self.n_cells, self.n_visual)
        if not self.is_finite(state):
            raise NativeError("its KV cache is damaged: it holds numbers that are not finite (NaN or infinity)")

    @abstractmethod
    def is_finite(self, state: bytearray) -> bool:
        """Whether all numbers of a state are, which this context has taken. Of recurrent layers nobody looks."""

    @abstractmethod
    def close(self) -> None: ...

    # --- what they share -------------------------------------------------------------------------------------------

    @property
    def can_rank_again(self) -> bool:
        """Whether visual tokens of earlier calls can be ranked for a new question: it holds the rows of all of them."""
        return self.held_bytes() > 0

    def held_bytes(self) -> int:
        """Bytes of the rows it holds for that, of the tokens it has."""
        return 0

    @property
    def n_batch(self) -> int:
        return self.decoder.n_batch

    def decode_tokens(self, tokens: Sequence[int], *, logits: bool, watch: Watch | None = None) -> None:
        """Appends text tokens; with `logits`, those after the last one can be read."""
        self.check_room(len(tokens))
        for start in range(0, len(tokens), self.n_batch):
            part = tokens[start : start + self.n_batch]
            end = start + len(part)
            self.decoder.tokens(part, self.n_past, logits=logits and end == len(tokens))
            self._moved(len(part))
            if watch:
                watch.step("prefill", end, len(tokens))

    def _moved(self, n: int) -> None:
        self.n_past += n
        self.n_cells += n

    def logits(self) -> Rows:
        """float32 [n_vocab], a copy of the logits after the last decoded token."""
        return self.decoder.logits()

    def mark(self) -> Mark:
        return Mark(self.n_past, self.n_cells, self.n_visual)

    def _go_to(self, mark: Mark) -> None:
        self.n_past, self.n_cells, self.n_visual = mark.n_past, mark.n_cells, mark.n_visual

    def can_rewind(self, mark: Mark) -> bool:
        """Whether it can forget everything after `mark` and nothing else; to its beginning it always can."""
        return True

    def rewind(self, mark: Mark) -> None:
        """Forgets everything after `mark`. Raises NativeError where it cannot, see `can_rewind`."""
        if not self.decoder.truncate(mark.n_past):
            raise NativeError(f"this model's memory cannot go back to position {mark.n_past}; start a new conversation")
        self._go_to(mark)

    def copy_from(self, other: Context) -> None:
        """Takes over another context's contents; they must fit."""
        self.restore(other.state(), other.mark())


def open_context(model: Model, plan: Plan, n_text: int, *, hold: bool = False) -> Context:
    """An empty context with room for the plan's visual tokens and n_text text tokens. Raises ContextError.

    hold: see PrunedContext.
    """
    if plan.staged:
        return open_pruned(model, plan.shares, n_text, plan.n_visual, hold=hold)
    return open_plain(model, n_text + plan.n_visual)


def open_plain(model: Model, n_ctx: int) -> PlainContext:
    """Raises ContextError."""
    model.contexts.before_next()
    return owned(model, PlainContext(model.text, n_ctx))


def open_pruned(
    model: Model, shares: Sequence[float], n_text: int, n_visual: int, *, hold: bool = False
) -> PrunedContext:
    """Raises ContextError, ModelError."""
    model.contexts.before_next()
    return owned(model, PrunedContext(model.text, shares, n_text, n_visual, hold=hold))


_C = TypeVar("_C", bound=Context)


def owned(model: Model, context: _C) -> _C:
    """The context, which the model frees with itself, or when nobody holds it any more."""
    model.contexts.add(context, context._native)
    return context


# --- plain -----------------------------------------------------------------------------------------------------------


class PlainContext(Context):
    """Every layer keeps every token.

    Recurrent layers keep a state instead; it can go back to the beginning of the last prompt, to its end, and to a few
    tokens before that. Layers with a window can go back as far as their window is there.
    """

    _native: LlamaContext

    def __init__(self, text: TextModel, n_ctx: int) -> None:
        super().__init__(text)
        try:
            self._native = LlamaContext(text.llama, n_ctx, text.options)
        except ServerLostError:
            raise
        except NativeError as e:
            need = padded_cells(n_ctx) * text.kv_bytes_per_cell() / 2**20
            raise ContextError(
                f"a context of {n_ctx} tokens ({need:.0f} MiB of KV cache) cannot be made: {e}; "
                "give a smaller n_ctx where one was given, take fewer frames (n_frames) or smaller KV types (type_k, "
                "type_v)"
            ) from e
        self.n_ctx = self._native.n_ctx
        self._points = Points()

    @property
    def decoder(self) -> Decoder:
        return self._native.decoder

    def can_rewind(self, mark: Mark) -> bool:
        llama = self.text.llama
        if mark.n_past == 0 or mark in self._points.states:
            return True
        if llama.is_recurrent:
            return mark == self.mark() and self.decoder.last_position() < mark.n_past
        return not llama.n_window or self.decoder.first_position() <= max(0, mark.n_past + 1 - llama.n_window)

    def rewind(self, mark: Mark) -> None:
        found = self._points.states.get(mark)
        if found is not None:
            self._native.restore_recurrent(found)
        super().rewind(mark)
        self._points = self._points.until(mark.n_cells)

    def _note_point(self) -> None:
        """It can go back to here."""
        if self.text.llama.is_recurrent and self.n_cells:
            self._points = self._points.with_one(self.mark(), self._native.recurrent_state(), _POINTS)

    @property
    def handle(self) -> Any:
        return self._native.handle

    def append(
        self,
        pieces: Sequence[Piece],
        blocks: Mapping[int, VisualBlock],
        tokens: VisualTokenConfig,
        watch: Watch,
        earlier: Sequence[Piece] = (),
        n_query: int = 0,
    ) -> Appended:
        assert not earlier, "nothing is pruned here that could be ranked again"
        start, total = self.mark(), sum(piece.n for piece in pieces)
        self._note_point()
        try:
            positions = self._append_each(pieces, blocks, watch, total)
            self._note_point()
        except BaseException:
            self.rewind(start)
            raise
        n_visual = self.n_visual - start.n_visual
        return Appended(positions, [np.arange(n_visual, dtype=np.int32)] * self.text.n_layer)

    def _append_each(
        self, pieces: Sequence[Piece], blocks: Mapping[int, VisualBlock], watch: Watch, total: int
    ) -> list[int]:
        done, positions = 0, list[int]()
        for i, piece in enumerate(pieces):
            before, part = self.n_past, _Part(watch, done, total)
            if isinstance(piece, TextPiece):
                self._append_tokens(piece.tokens, i + 1 == len(pieces), part.watch)
                positions += [1] * piece.n
            else:
                self._append_block(blocks[i], part.watch)
                positions.append(self.n_past - before)
            done += piece.n
        return positions

    def _append_tokens(self, tokens: Sequence[int], are_last: bool, watch: Watch) -> None:
        if are_last and self.text.llama.is_recurrent and len(tokens) > _TAIL:
            self.decode_tokens(tokens[:-_TAIL], logits=False, watch=watch)
            self._note_point()
            tokens = tokens[-_TAIL:]
        self.decode_tokens(tokens, logits=are_last, watch=watch)

    def _append_block(self, block: VisualBlock, watch: Watch) -> None:
        rows = block.rows
        if rows.ndim != 2 or rows.shape[1] != self.text.n_embd:
            raise ModelError(f"visual tokens are {list(rows.shape)}, the language model takes [n, {self.text.n_embd}]")
        self.check_room(len(rows))
        if block.both_ways:
            self._append_together(rows, watch)
        elif block.decode:
            self.n_past = block.decode(self.handle, self.n_past, self.n_batch)
            self.n_cells += len(rows)
        else:
            self._append_rows(rows, block.rotary, watch)
        self.n_visual += len(rows)

    def _append_rows(self, rows: Rows, rotary: Rotary | None, watch: Watch) -> None:
        first = self.n_past
        for start in range(0, len(rows), self.n_batch):
            part = rows[start : start + self.n_batch]
            ids = None if rotary is None else rotary.ids[start : start + self.n_batch] + np.int32(first)
            self.decoder.rows(part, self.n_past, ids)
            self._moved(len(part))
            watch.step("prefill", start + len(part), len(rows))
        if rotary:
            self.n_past = first + rotary.advance

    def _append_together(self, rows: Rows, watch: Watch) -> None:
        """Rows that attend to each other: one batch, whose mask is not causal."""
        if len(rows) > self.n_batch:
            raise ContextError(
                f"{len(rows)} visual tokens see each other and are computed together, {self.n_batch} at most: "
                f"load with n_ubatch {len(rows)} or more"
            )
        self.decoder.rows_together(rows, self.n_past)
        self._moved(len(rows))
        watch.step("prefill", len(rows), len(rows))

    def check_room(self, n: int) -> None:
        if self.n_cells + n > self.n_ctx:
            raise ContextError(
                f"the context is full: {self.n_cells} of {self.n_ctx} tokens used, {n} more needed; "
                "start a new conversation, or load with a larger n_ctx"
            )

    def fits(self, n_text: int, n_visual: int) -> bool:
        return self.n_cells + n_text + n_visual <= self.n_ctx

    def larger(self, n_ctx: int, n_visual: int) -> Self:
        return type(self)(self.text, n_ctx)

    def kv_bytes(self) -> int:
        return self.n_ctx * self.text.kv_bytes_per_cell() + self.text.recurrent_bytes()

    def state(self) -> bytearray:
        state = self._native.state()
        return bytearray(self._points.packed()) + state if self.text.llama.is_recurrent else state

    def restore(self, state: bytearray, mark: Mark) -> None:
        if self.text.llama.is_recurrent:
            try:
                points, state = Points.unpacked(state, _POINTS)
            except ValueError as e:
                raise NativeError("a saved conversation's recurrent state is cut short; it cannot be taken up") from e
            self._native.restore(state)
            self._points = points.until(mark.n_cells)
        else:
            self._native.restore(state)
        self._go_to(mark)

    def is_finite(self, state: bytearray) -> bool:
        return self.text.llama.is_recurrent or plain_is_finite(state, has_ext=self.text.has_rotary_ids)

    def close(self) -> None:
        self._native.close()


class _Part:
    """Progress of one piece as progress of the whole prompt."""

    def __init__(self, watch: Watch, done: int, total: int) -> None:
        self._watch, self._done, self._total = watch, done, total
        self.watch = Watch(self._step, watch.check)

    def _step(self, stage: str, done: int, _total: int) -> None:
        if self._watch.progress:
            self._watch.progress(stage, self._done + done, self._total)


# --- pruned ----------------------------------------------------------------------------------------------------------


def _joined(rows: Sequence[Rows]) -> Rows | None:
    """One array of them. A single one is taken as it is: of a long clip and a wide model it is hundreds of MB."""
    return np.concatenate(rows) if len(rows) > 1 else next(iter(rows), None)


def _sizes(n_held: int, pieces: Sequence[Piece], blocks: Mapping[int, VisualBlock]) -> NDArray[np.int32]:
    """How many of the tower's rows each row stands for, int32 [n_held + n]; the first n_held are known already."""
    sizes = [np.ones(n_held, np.int32)]
    for i, piece in enumerate(pieces):
        found = blocks[i].sizes if i in blocks else None
        sizes.append(np.ones(piece.n, np.int32) if found is None else found)
    return np.concatenate(sizes)


def _rotary(first: int, pieces: Sequence[Piece], blocks: Mapping[int, VisualBlock], n_held: int) -> NDArray[np.int32]:
    """Rotary ids of all rows, int32 [n_held + n, 3]. first: of the first new row, where it is text.

    Behind visual tokens text goes on where their family says, which may be before the last of their times.
    ref: get_rope_index of transformers 5
    """
    found = [np.zeros((n_held, 3), np.int32)]
    for i, piece in enumerate(pieces):
        own = blocks[i].rotary if i in blocks else None
        ids = np.repeat(np.arange(piece.n, dtype=np.int32)[:, None], 3, axis=1) if own is None else own.ids
        found.append(ids + np.int32(first))
        first += piece.n if own is None else own.advance
    return np.concatenate(found)


class PrunedContext(Context):
    """One KV cache per stage of layers; of one stage alone where no visual tokens are pruned: they are weighed, or have
    rotary ids. A position is a row's number here.

    shares: share of visual tokens that enters each layer. n_text, n_visual: room for text tokens, and for visual tokens
    of the first layer; a stage with share r has n_text + floor(n_visual * r) cells (a little more with several media).
    hold: keeps the rows that leave the last layer before pruning, so that later calls can rank earlier tokens again.
    """

    _native: StagedContext

    def __init__(
        self, text: TextModel, shares: Sequence[float], n_text: int, n_visual: int, *, hold: bool = False
    ) -> None:
        super().__init__(text)
        self.shares, self.n_text_room, self.n_visual_room = list(shares), n_text, n_visual
        self.hold = hold
        self._begins = stage_begins(self.shares)
        counts = layer_counts(n_visual, self.shares)
        plan = StagePlan(tuple(self._begins), tuple(n_text + counts[il] for il in self._begins))
        options = text.options
        self._native = StagedContext(
            text.llama.owned,
            plan,
            n_ubatch=options.n_ubatch,
            n_batch=options.n_ubatch,
            n_threads=options.n_threads,
            type_k=options.type_k,
            type_v=options.type_v,
            flash_attn=None if options.flash_attn == "auto" else bool(options.flash_attn),
            hold=self._what_to_hold(),
            stop=text.llama.stop,
            precision=options.precision,
        )
        self._decoder = Decoder(text.llama, self._native.owned)
        self.n_ctx = n_text + n_visual

    def _what_to_hold(self) -> str:
        """Queries where the last layer before pruning ranks, which a drop of everything does not need."""
        if not self.hold or len(self._begins) == 1:
            return "nothing"
        return "queries" if self.shares[self._begins[1]] > 0 else "rows"

    @property
    def decoder(self) -> Decoder:
        return self._decoder

    @property
    def handle(self) -> Any:
        return self._native.ctx

    def append(
        self,
        pieces: Sequence[Piece],
        blocks: Mapping[int, VisualBlock],
        tokens: VisualTokenConfig,
        watch: Watch,
        earlier: Sequence[Piece] = (),
        n_query: int = 0,
    ) -> Appended:
        """A prompt with media goes through all stages in one call; text alone is decoded as it is.

        With `earlier` all visual tokens of the conversation are ranked again, as a prefill of all of it would.
        """
        if not blocks and not earlier:
            return self._append_text(pieces, watch)
        if any(block.decode or block.both_ways for block in blocks.values()):
            what, cure = ("pruning", "prune_layers=None") if tokens.prunes else ("weighing by size", 'weigh="equal"')
            raise UsageError(
                f"{what} is not available for this vision tower (M-RoPE or non-causal visual tokens); set {cure}"
            )
        watch.check()
        start, total = self.mark(), sum(piece.n for piece in pieces)
        try:
            self._prefill(earlier, pieces, blocks, tokens, n_query)
            watch.step("prefill", total, total)
        except BaseException:
            self.rewind(start)
            raise
        layers = range(self.text.n_layer)
        scores = {il: self._native.importance(il) for il in layers}
        return Appended(
            positions=[n for p in pieces for n in ([1] * p.n if isinstance(p, TextPiece) else [p.n])],
            kept=[self._native.kept(il) for il in layers],
            importance={il: score for il, score in scores.items() if score is not None},
            importance_ms=sum(stage.importance_ms for stage in self.stages()),
        )

    def _append_text(self, pieces: Sequence[Piece], watch: Watch) -> Appended:
        tokens = [token for piece in pieces if isinstance(piece, TextPiece) for token in piece.tokens]
        start = self.mark()
        try:
            self.decode_tokens(tokens, logits=True, watch=watch)
        except BaseException:
            self.rewind(start)
            raise
        return Appended([1] * len(tokens), [np.arange(0, dtype=np.int32)] * self.text.n_layer)

    def _prefill(
        self,
        earlier: Sequence[Piece],
        pieces: Sequence[Piece],
        blocks: Mapping[int, VisualBlock],
        tokens: VisualTokenConfig,
        n_query: int,
    ) -> None:
        kinds: list[int] = []
        ids: list[int] = []
        for piece in (*earlier, *pieces):
            is_text = isinstance(piece, TextPiece)
            kinds += [ROW_TOKEN if is_text else ROW_VISUAL] * piece.n
            ids += piece.tokens if isinstance(piece, TextPiece) else [0] * piece.n
        n_visual = kinds.count(ROW_VISUAL)
        counts = layer_counts(n_visual, self.shares)
        how, n_held = tokens.importance, sum(piece.n for piece in earlier)
        self._native.prefill(
            kinds,
            ids,
            _joined([block.rows for block in blocks.values()]),
            [counts[il] for il in self._begins],
            importance=how if isinstance(how, str) else "pagerank",
            seed=tokens.seed,
            select=None if isinstance(how, str) else how,
            n_held=n_held,
            n_query=n_query,
            sizes=_sizes(n_held, pieces, blocks) if tokens.weigh == "size" else None,
            rotary=_rotary(self._native.next_id, pieces, blocks, n_held) if self.text.has_rotary_ids else None,
        )
        self._moved(sum(piece.n for piece in pieces))
        self.n_visual += count_visual(pieces)

    def check_room(self, n: int) -> None:
        used = self.n_cells - self.n_visual
        if used + n > self.n_text_room:
            raise ContextError(
                f"the context is full: {used} of {self.n_text_room} text tokens used, {n} more needed; "
                "start a new conversation, or load with a larger n_ctx"
            )

    def fits(self, n_text: int, n_visual: int) -> bool:
        text = self.n_cells - self.n_visual + n_text
        return text <= self.n_text_room and self.n_visual + n_visual <= self.n_visual_room

    def larger(self, n_ctx: int, n_visual: int) -> Self:
        n_visual += self.n_visual
        return type(self)(self.text, self.shares, max(self.n_text_room, n_ctx - n_visual), n_visual, hold=self.hold)

    def kv_bytes(self) -> int:
        return sum(stage.kv_bytes for stage in self.stages())

    def held_bytes(self) -> int:
        return self.n_cells * self._native.held_row_bytes

    def stages(self) -> list[StageInfo]:
        return self._native.stages()

    def state(self) -> bytearray:
        return self._native.state()

    def restore(self, state: bytearray, mark: Mark) -> None:
        name = self.text.architecture.encode()
        if not state.startswith(len(name).to_bytes(4, "little") + name):  # llama.cpp would read any length of it
            raise NativeError(f"the saved KV cache is not of a model with the text architecture {name.decode()}")
        self._native.restore(state)
        self._go_to(mark)

    def is_finite(self, state: bytearray) -> bool:
        return staged_is_finite(state, has_ext=self.text.has_rotary_ids)

    def copy_from(self, other: Context) -> None:
        if not isinstance(other, PrunedContext) or other.shares != self.shares:
            raise UsageError("a pruned conversation can only move to a context with the same stages")
        super().copy_from(other)

    def close(self) -> None:
        self._native.close()
