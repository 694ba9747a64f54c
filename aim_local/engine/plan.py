"""The plan of a prompt, before anything expensive: its pieces, which visual tokens are kept, and the room it needs.

Knows sizes of media (MediaShape), not pixels, and computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from ..config import VisualTokenConfig
from ..errors import ContextError, ModelError, UsageError
from ..media import MediaShape
from ..models.base import Tower
from ..models.keys import by_keys
from ..models.pieces import MediaPiece, Part, Piece, TextPiece, VisualPart, count_text, count_visual, count_visual_full
from ..models.prompt import Letters, split_marks
from ..native.llama import padded_cells
from ..reduction.planner import layer_counts, layer_shares, resolve_budget
from .model import Model

_PICTURE = MediaShape("image", 1, 336, 336, "", "", (), (), math.nan)  # any, where none is there yet


@dataclass(frozen=True)
class Plan:
    """tokens: what is done with visual tokens; shares: of them entering each layer.

    n_query: rows at the end that ask, for rankings by the question; 0: all text behind the last visual token.
    turned: whether visual tokens have rotary ids of their own (M-RoPE), and stages can take them.
    most_frames: of a new video, 0 without one. with_frames: the same prompt with at most n frames of each new video.
    """

    pieces: tuple[Piece, ...]
    tokens: VisualTokenConfig
    shares: tuple[float, ...]
    n_query: int = 0
    turned: bool = False
    most_frames: int = 0
    with_frames: Callable[[int], Plan] | None = field(default=None, compare=False, repr=False)

    @property
    def n(self) -> int:
        """Rows the first layer computes."""
        return self.n_text + self.n_visual

    @cached_property
    def n_text(self) -> int:
        return count_text(self.pieces)

    @cached_property
    def n_visual(self) -> int:
        return count_visual(self.pieces)

    @cached_property
    def n_visual_full(self) -> int:
        return count_visual_full(self.pieces)

    @property
    def media(self) -> bool:
        return any(isinstance(p, MediaPiece) for p in self.pieces)

    @property
    def n_asking(self) -> int:
        """Rows of the question."""
        last = self.pieces[-1] if self.pieces else None
        return self.n_query or (last.n if isinstance(last, TextPiece) else 0)

    @property
    def prunes(self) -> bool:
        return min(self.shares) < 1

    @property
    def weighs(self) -> bool:
        """Whether merged rows count as the patches they stand for."""
        return self.media and self.tokens.weigh == "size"

    @property
    def staged(self) -> bool:
        """Whether it needs a context with stages: to drop visual tokens between layers, to weigh or to turn them."""
        return self.prunes or self.weighs or (self.media and self.turned)

    @property
    def counts(self) -> list[int]:
        """Visual tokens entering each layer."""
        return layer_counts(self.n_visual, self.shares)


def plan_prompt(
    model: Model, rendered: str, shapes: Sequence[MediaShape], asked: VisualTokenConfig | None = None, n_shown: int = 0
) -> Plan:
    """The plan of a rendered prompt. shapes: of the media its marks mean; asked: None for the default.

    n_shown: of the shapes, those that a conversation has shown already. Raises UsageError, ModelError.
    """
    n_layer = model.text.n_layer
    if model.tower is None:
        tokens, shares = VisualTokenConfig.off(), [1.0] * n_layer
    else:
        if asked is not None and by_keys(asked):
            for shape in shapes:  # whether it is for such an item at all, before what it does to layers
                model.tower.check_merging(shape, asked)
        tokens = _settle(model, model.tower, rendered, shapes, asked)
        shares = layer_shares(tokens, n_layer) if shapes else [1.0] * n_layer
        for shape in shapes:
            model.tower.check_merging(shape, tokens)
    pieces = _pieces(model, rendered, shapes, tokens.merge_retain)
    if not pieces or not isinstance(pieces[-1], TextPiece):
        raise UsageError("the prompt ends with a media item; put some text after it, such as the question")
    turned = model.tower is not None and model.tower.gives_rotary_ids and not model.text.prune_refusal()
    most = max((shape.n_frames for shape in shapes[n_shown:] if shape.kind == "video"), default=0)
    again = partial(_with_frames, model, rendered, tuple(shapes), asked, n_shown)
    return Plan(pieces, tokens, tuple(shares), turned=turned, most_frames=most, with_frames=again)


def _with_frames(
    model: Model,
    rendered: str,
    shapes: tuple[MediaShape, ...],
    asked: VisualTokenConfig | None,
    n_shown: int,
    n: int,
) -> Plan:
    new = [shape.thinned(n) for shape in shapes[n_shown:]]
    return plan_prompt(model, rendered, [*shapes[:n_shown], *new], asked, n_shown)


def frames_that_fit(plan: Plan, n_rows: int) -> int:
    """Most frames of each new video with which a plan, or the rest of one, has at most n_rows rows; 0 where none do."""
    if not plan.most_frames or plan.with_frames is None:
        return 0
    low, high, whole = 0, plan.most_frames - 1, plan.with_frames(plan.most_frames).n
    while low < high:
        middle = (low + high + 1) // 2
        if plan.n - whole + plan.with_frames(middle).n <= n_rows:
            low = middle
        else:
            high = middle - 1
    return low


def _settle(
    model: Model, tower: Tower, rendered: str, shapes: Sequence[MediaShape], asked: VisualTokenConfig | None
) -> VisualTokenConfig:
    """What is done: what was asked, the default, or what a budget comes to."""
    if asked is None:
        return default_tokens(model, shapes)
    check_tokens(model, asked)
    if asked.flops_share is None:
        return asked
    pieces = _pieces(model, rendered, shapes, 1.0)
    shown = [shapes[i] for i in dict.fromkeys(p.media for p in pieces if isinstance(p, MediaPiece))]

    def count(retain: float) -> int:
        return sum(tower.count(shape, retain) for shape in shown)

    shape, n_text = model.text.shape, count_text(pieces)
    found = resolve_budget(asked.flops_share, shape, n_text, count_visual_full(pieces), count)
    return replace(
        asked,
        merge_retain=found.merge_retain,
        prune_layers=found.prune_layers,
        retention=found.retention,
        flops_share=None,
    )


# --- pieces ----------------------------------------------------------------------------------------------------------


def _pieces(model: Model, rendered: str, shapes: Sequence[MediaShape], retain: float) -> tuple[Piece, ...]:
    """Neighbouring texts are one text before they are tokenised."""
    pieces: list[Piece] = []
    text, tokens = "", list[int]()

    def close_text() -> None:
        nonlocal text
        if text:
            tokens.extend(model.text.tokenize(text, start=not pieces and not tokens))
            text = ""

    def close_tokens() -> None:
        close_text()
        if tokens:
            pieces.append(TextPiece(tuple(tokens)))
            tokens.clear()

    for part in _parts(model, rendered, shapes, retain):
        if isinstance(part, str):
            text += part
        elif isinstance(part, MediaPiece):
            close_tokens()
            pieces.append(part)
        else:
            close_text()
            tokens.extend(part)
    close_tokens()
    return tuple(pieces)


def _parts(
    model: Model, rendered: str, shapes: Sequence[MediaShape], retain: float
) -> Iterator[str | tuple[int, ...] | MediaPiece]:
    """Texts, tokens and visual parts in order, every item laid out by its family."""
    for found in split_marks(rendered):
        if isinstance(found, str):
            yield found
        elif isinstance(found, Letters):
            yield tuple(model.text.tokenize(found.text, start=False, special=False))
        elif model.tower:
            yield from _numbered(found, model.tower.layout(shapes[found], retain))


def _numbered(media: int, parts: list[Part]) -> Iterator[str | tuple[int, ...] | MediaPiece]:
    n_visual = 0
    for part in parts:
        if isinstance(part, VisualPart):
            yield MediaPiece(media, n_visual, part.n, part.n_full)
            n_visual += 1
        else:
            yield part


# --- which visual tokens are kept ------------------------------------------------------------------------------------


def check_tokens(model: Model, tokens: VisualTokenConfig) -> None:
    """Raises UsageError or ModelError for a setting this model cannot do, before anything is computed."""
    if model.tower and by_keys(tokens):
        model.tower.check_merging(_PICTURE, tokens)
    if not tokens.prunes and tokens.weigh == "equal":
        return
    reason = model.text.prune_refusal()
    if reason and tokens.prunes:
        raise ModelError(f"visual tokens cannot be pruned inside {model.name}: {reason}; use prune_layers=None")
    if reason:
        raise ModelError(
            f"visual tokens cannot be weighed by size inside {model.name}, which needs what pruning needs: {reason}; "
            'use weigh="equal"'
        )
    if tokens.flops_share is None:
        layer_shares(tokens, model.text.n_layer)


def default_tokens(model: Model, shapes: Sequence[MediaShape]) -> VisualTokenConfig:
    """What is done when nothing is asked: for videos `auto`, nothing for pictures.

    Where merged rows cannot be weighed (another architecture), they are merged as `auto` does, and count alike.
    """
    video = any(shape.kind == "video" for shape in shapes)
    if not video or model.tower is None or not model.tower.reduces_by_default:
        return VisualTokenConfig.off()
    return weighed_where_possible(model, VisualTokenConfig.auto())


def weighed_where_possible(model: Model, tokens: VisualTokenConfig) -> VisualTokenConfig:
    """`tokens`, with merged rows that count alike where this model cannot weigh them; for weights nobody asked for."""
    try:
        check_tokens(model, tokens)
    except ModelError:
        return replace(tokens, weigh="equal")
    return tokens


# --- room ------------------------------------------------------------------------------------------------------------


def context_size(model: Model, plan: Plan, n_answer: int, n_given: int = 1) -> int:
    """Cells for a prompt and its answer. Raises ContextError saying how many are needed and how to fit.

    n_given: tokens of the answer that must fit: one that is drawn, or all of an answer that is given.
    """
    asked = asked_cells(model)
    limit = asked or model.n_ctx_train
    if plan.n + n_given > padded_cells(limit):
        raise ContextError(_too_small(model, plan, limit, asked is not None, n_given))
    return asked or max(plan.n + 1, min(model.n_ctx_train, plan.n + n_answer + 1))


def asked_cells(model: Model) -> int | None:
    """Cells of a context whose size the user gave, rounded up as llama.cpp does; None: sized to what is in it.

    Text and visual tokens share these cells, so they must be the rounded ones wherever one is taken from the other.
    """
    return padded_cells(model.config.n_ctx) if model.config.n_ctx else None


def _too_small(model: Model, plan: Plan, limit: int, asked: bool, n_given: int) -> str:
    need, answer = plan.n + n_given, "one" if n_given == 1 else n_given
    what = f"the prompt needs {need} tokens with {answer} for the answer, {plan.n_visual} of them visual; "
    trained = f"{model.name} was trained for {model.n_ctx_train}"
    is_text_alone = not plan.n_visual or plan.n_text + n_given > padded_cells(limit)  # that is too much
    less = "shorten the text" if is_text_alone else less_media(plan, padded_cells(limit) - n_given)
    if n_given > 1:
        less += ", or give fewer answer_tokens"
    if not asked:
        fit = f"{trained}: {less}"
    elif need <= model.n_ctx_train:
        fit = f"the context holds {limit}: load with n_ctx={need} or more, or {less}"
    else:
        fit = f"the context holds {limit}, and {trained}: {less}"
    if is_text_alone:
        return what + fit
    share = max(0, limit - n_given - plan.n_text) / plan.n_visual
    return f"{what}{fit}; at most {share:.0%} of the visual tokens fit"


def less_media(plan: Plan, n_rows: int) -> str:
    """What to do so that a plan, or the rest of one, has at most n_rows rows."""
    n = frames_that_fit(plan, n_rows)
    if n:
        return f"use n_frames={n} or fewer"
    fewer = "not one frame fits: " if plan.most_frames else ""
    return f"{fewer}keep fewer visual tokens (merge_retain), or take fewer pictures"
