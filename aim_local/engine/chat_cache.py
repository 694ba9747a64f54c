"""What a conversation's context holds, item by item: which beginning of the next prompt is there already.

Knows tokens, media as one item each, and marks. What the items mean, and when to compute, is chat.py's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import ContextError
from ..models.pieces import Piece, TextPiece
from .contexts import Context, PrunedContext, open_plain, open_pruned
from .model import Model
from .plan import Plan, asked_cells
from .points import Mark

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
    def from_dict(cls, model: Model, data: dict[str, Any], state: bytearray, *, hold: bool) -> Cache:
        """A cache with the same contents. hold: rows to rank earlier visual tokens again, where the state has them.

        Raises ContextError where the model was loaded for fewer tokens.
        """
        cache = cls(_open_saved(model, data, hold), [float(share) for share in data["shares"]])
        try:
            cache.items = [tuple(item) if isinstance(item, list) else int(item) for item in data["items"]]
            cache.marks = [Mark(*mark) for mark in data["marks"]]
            cache.context.restore(state, cache.marks[-1])
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


def _open_saved(model: Model, data: dict[str, Any], hold: bool) -> Context:
    """An empty context as large as the saved one, or as the model's --ctx says."""
    n_ctx, last = asked_cells(model) or data["n_ctx"], Mark(*data["marks"][-1])
    n_visual = data["rooms"][1] if data["rooms"] else last.n_visual  # room that text cannot take
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
