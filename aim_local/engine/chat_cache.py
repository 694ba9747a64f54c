"""What a conversation's context holds, item by item: which beginning of the next prompt is there already.

Knows tokens, media as one item each, and marks. What the items mean, and when to compute, is chat.py's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import ContextError
from ..models.pieces import Piece, TextPiece
from ..models.text import TextModel
from .contexts import Context, PrunedContext, open_plain, open_pruned
from .model import Model
from .plan import Plan, asked_cells
from .points import Mark

_LEAST_ROOM = 4096  # tokens that a context taken up again has room for, where it had it

Item = int | tuple[int, int]  # a text token, or (media index, visual tokens)


class Cache:
    """What a context holds, item by item, and the mark after each. Owns the context.

    shares: of visual tokens entering each layer.
    """

    def __init__(self, context: Context, shares: Sequence[float]) -> None:
        self.context, self.shares = context, list(shares)
        self.items: list[Item] = []
        self.marks = [context.mark()]  # marks[k]: after k items

    def suits(self, plan: Plan) -> bool:
        """Whether the plan's visual tokens can be in this context, as it treats them."""
        if not plan.media:
            return True
        return self.shares == list(plan.shares) and (not plan.staged or isinstance(self.context, PrunedContext))

    def keep_common(self, items: Sequence[Item], n_new: int) -> int:
        """Forgets all behind the common beginning with `items`, whose last n_new stay new; returns how many stay."""
        same = 0
        while same < min(len(items) - n_new, len(self.items)) and self.items[same] == items[same]:
            same += 1
        return self.rewind(same)

    def rewind(self, n: int) -> int:
        """Forgets everything behind the first n items, also what a Ctrl-C left in the native cache uncounted.

        A memory that cannot go back there goes further; returns how many items stay.
        """
        while not self.context.can_rewind(self.marks[n]):
            n -= 1
        self.context.rewind(self.marks[n])
        del self.items[n:], self.marks[n + 1 :]
        return n

    def to_dict(self) -> dict[str, Any]:
        """What it holds and how large it is, without the KV cache itself."""
        context, rooms = self.context, None
        if isinstance(context, PrunedContext):
            rooms = [context.n_text_room, context.n_visual_room]
        marks = [[m.n_past, m.n_cells, m.n_visual] for m in self.marks[: len(self.items) + 1]]
        return {"shares": self.shares, "n_ctx": context.n_ctx, "rooms": rooms, "items": self.items, "marks": marks}

    @classmethod
    def from_dict(cls, model: Model, data: dict[str, Any], state: bytearray, *, hold: bool, n_answer: int) -> Cache:
        """A cache with the same contents. hold: rows to rank earlier visual tokens again, where the state has them.

        data: as store/chat_header.py lets it through, and `check_fits` of this model; n_answer: tokens to come. Raises
        ContextError where the model was loaded for fewer tokens, NativeError for a state that is not what `data` says.
        """
        cache = cls(_open_saved(model, data, hold, n_answer), [float(share) for share in data["shares"]])
        try:
            cache.items = [tuple(item) if isinstance(item, list) else int(item) for item in data["items"]]
            cache.marks = [Mark(*mark) for mark in data["marks"]]
            cache.context.restore(state, cache.marks[-1])
            cache.context.check_restored(state)
        except BaseException:
            cache.context.close()
            raise
        return cache

    def note(self, items: Sequence[Item], positions: Sequence[int]) -> None:
        """Items that were decoded. positions: how far each moved the next position."""
        for item, n_pos in zip(items, positions, strict=True):
            last, n_visual = self.marks[len(self.items)], item[1] if isinstance(item, tuple) else 0
            n_cells = last.n_cells + (n_visual or 1)
            mark = Mark(last.n_past + n_pos, n_cells, last.n_visual + n_visual)
            self.marks[len(self.items) + 1 :] = [mark]  # before its item: a mark too many does no harm
            self.items.append(item)


def check_fits(model: Model, data: dict[str, Any], n_state: int) -> None:
    """Raises ContextError where a cache with so large a state cannot be one of this model."""
    text, last = model.text, Mark(*data["marks"][-1])
    if len(data["shares"]) != text.n_layer:
        raise ContextError(f"the saved KV cache is of {len(data['shares'])} layers, the model has {text.n_layer}")
    largest = max((item for item in data["items"] if isinstance(item, int)), default=0)
    if largest >= text.n_vocab:
        raise ContextError(f"the saved conversation has token {largest}, the model has {text.n_vocab}")
    least, most = _state_bounds(text, last, is_pruned=data["rooms"] is not None)
    if not least <= n_state <= most:
        raise ContextError(
            f"the saved KV cache has {n_state} bytes, with this model {last.n_cells} tokens take {least} to {most}"
        )


def _state_bounds(text: TextModel, last: Mark, *, is_pruned: bool) -> tuple[int, int]:
    """Bytes that a state has at least and at most: so close that a small file cannot claim a large context."""
    per_cell, is_plain = text.kv_bytes_per_cell(), not text.llama.is_recurrent and not text.llama.n_window
    n_kept = last.n_cells - (last.n_visual if is_pruned else 0)  # visual tokens may be dropped
    least = n_kept * (per_cell // (2 if is_plain else 16))  # layers with windows or states have few cells
    shape = text.shape
    held = 4 * (text.n_embd + shape.n_head * shape.d_head)  # rows to rank again
    return least, 2 * last.n_cells * (per_cell + held + 64 * text.n_layer) + 8 * text.recurrent_bytes() + (1 << 20)


def _open_saved(model: Model, data: dict[str, Any], hold: bool, n_answer: int) -> Context:
    """An empty context as large as the saved one, or as the model's --ctx says.

    One that is much larger than what it holds is made smaller: what a file claims takes no memory. It grows when full.
    """
    last, rooms = Mark(*data["marks"][-1]), data["rooms"]
    room = max(_LEAST_ROOM, 2 * last.n_cells + n_answer)
    n_visual = min(rooms[1], max(_LEAST_ROOM, 2 * last.n_visual)) if rooms else last.n_visual  # text cannot take it
    n_ctx = asked_cells(model) or min(data["n_ctx"], room + n_visual if rooms else room)
    used = last.n_cells - last.n_visual + n_visual
    if used > n_ctx:
        raise ContextError(
            f"the saved conversation holds {used} tokens, the context {n_ctx}; load with n_ctx={used} or more"
        )
    if data["rooms"] is None:
        return open_plain(model, n_ctx)
    return open_pruned(model, data["shares"], n_ctx - n_visual, n_visual, hold=hold)


def plan_items(plan: Plan) -> list[Item]:
    """A plan as cache items."""
    items: list[Item] = []
    for piece in plan.pieces:
        items += piece.tokens if isinstance(piece, TextPiece) else [(piece.media, piece.n)]
    return items


def n_turn_text(before: Sequence[Item], items: Sequence[Item]) -> int:
    """Text tokens at the end of `items`, as far as they are not in the beginning that both conversations share."""
    same, n_text = 0, 0
    while same < min(len(before), len(items)) and before[same] == items[same]:
        same += 1
    while n_text < len(items) - same and not isinstance(items[-1 - n_text], tuple):
        n_text += 1
    return n_text


def split_plan(plan: Plan, n: int) -> tuple[Plan, Plan]:
    """The plan's first n items, and the others."""
    before: list[Piece] = []
    after: list[Piece] = []
    for piece in plan.pieces:
        size = len(piece.tokens) if isinstance(piece, TextPiece) else 1
        if isinstance(piece, TextPiece) and 0 < n < size:
            before.append(TextPiece(piece.tokens[:n]))
            after.append(TextPiece(piece.tokens[n:]))
        else:
            (before if n >= size else after).append(piece)
        n = max(0, n - size)
    return replace(plan, pieces=tuple(before)), replace(plan, pieces=tuple(after))
