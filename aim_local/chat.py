"""A conversation: messages, and a KV cache that already holds their beginning.

Every turn renders and tokenises the whole conversation; what it has in common with the cache is kept, whatever the
chat template did to earlier answers. Prefill and sampling are elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .blocks import Piece, TextPiece, count_visual
from .config import GenerateConfig, VisualTokenConfig
from .errors import AimError, ContextError
from .media import FrameSampling, Image, Video
from .prompt import Message
from .run import Answer, Media, Progress, PromptPlan, Run, check_tokens, context_size
from .sampler import OnText
from .text import Context, Mark

if TYPE_CHECKING:
    from .llm import VisionLLM

_FIRST_CELLS = 4096  # a new conversation's context, where the model allows it; it grows when full
_SPARE_TEXT = 1024


def system_message(system: str | None) -> list[Message]:
    return [Message("system", system)] if system else []


Item = int | tuple[int, int]  # a text token, or (media index, visual tokens)


class Cache:
    """What a context holds, item by item, and the mark after each. Owns the context.

    shares: of visual tokens entering each layer.
    """

    def __init__(self, context: Context, shares: list[float]) -> None:
        self.context, self.shares = context, shares
        self.items: list[Item] = []
        self.marks = [context.mark()]  # marks[k]: after k items

    def keep_common(self, items: Sequence[Item]) -> int:
        """Forgets everything behind the common beginning with `items`; returns its length."""
        same = 0
        while same < min(len(items) - 1, len(self.items)) and self.items[same] == items[same]:
            same += 1
        self.rewind(same)
        return same

    def rewind(self, n: int) -> None:
        if self.context.mark() != self.marks[n]:
            self.context.rewind(self.marks[n])
        del self.items[n:], self.marks[n + 1 :]

    def note(self, items: Sequence[Item], positions: Sequence[int]) -> None:
        """Items that were decoded. positions: how far each moved the next position."""
        for item, n_pos in zip(items, positions, strict=True):
            last, n_visual = self.marks[-1], item[1] if isinstance(item, tuple) else 0
            self.items.append(item)
            n_cells = last.n_cells + (n_visual or 1)
            self.marks.append(Mark(last.n_past + n_pos, n_cells, last.n_visual + n_visual))


def plan_items(plan: PromptPlan) -> list[Item]:
    """A plan as cache items."""
    items: list[Item] = []
    for piece in plan.pieces:
        items += piece.tokens if isinstance(piece, TextPiece) else [(piece.media, piece.n)]
    return items


def without(plan: PromptPlan, n: int) -> PromptPlan:
    """The plan without its first n items."""
    pieces: list[Piece] = []
    for piece in plan.pieces:
        size = len(piece.tokens) if isinstance(piece, TextPiece) else 1
        if n < size:
            pieces.append(TextPiece(piece.tokens[n:]) if isinstance(piece, TextPiece) else piece)
        n = max(0, n - size)
    return PromptPlan(pieces, plan.keep)


class Chat:
    """A conversation. `ask` streams; earlier turns stay in the KV cache. `close()` frees it."""

    def __init__(
        self,
        llm: VisionLLM,
        tokens: VisualTokenConfig | None,
        system: str | None,
        generate: GenerateConfig,
        sampling: FrameSampling | None,
    ) -> None:
        self.llm, self.system, self.options, self.sampling = llm, system, generate, sampling
        self.tokens = tokens
        if tokens is not None:
            check_tokens(llm, tokens)
        self._cache: Cache | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the system prompt."""
        self.close()
        self._messages: list[Message] = system_message(self.system)
        self._media: list[Video | Image] = []

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as plain data: role, content and the sources of the media shown with each turn."""
        return [
            {"role": m.role, "content": m.text, "media": [self._media[i].source for i, _ in m.media]}
            for m in self._messages
        ]

    @property
    def used(self) -> int:
        """Tokens in the context."""
        return self._cache.context.n_cells if self._cache else 0

    @property
    def n_ctx(self) -> int:
        return self._cache.context.n_ctx if self._cache else 0

    def ask(
        self,
        question: str,
        media: Sequence[Media] = (),
        generate: GenerateConfig | None = None,
        on_text: OnText | None = None,
        progress: Progress | None = None,
    ) -> Answer:
        """One turn. Ctrl-C during the answer keeps what was said so far; before it, the turn is taken back."""
        start, options = time.perf_counter(), generate or self.options
        n_media = len(self._media)
        run = Run(self.llm, self.tokens, self.sampling, progress, self._media)
        try:
            run.read(media)
            turn = Message("user", question, run.media_refs(n_media))
            cache = self._prefill(run, [*self._messages, turn], options.max_tokens)
        except BaseException:
            del self._media[n_media:]
            self._roll_back()
            raise
        n_before = cache.context.n_past
        answer = run.generate(cache.context, options, on_text, start)
        decoded = answer.tokens[: cache.context.n_past - n_before]  # the last token drawn is not in the cache
        cache.note(decoded, [1] * len(decoded))
        self._messages += [turn, Message("assistant", answer.text)]
        return Answer(answer.text, answer.tokens, run.stats, run.trace, run.warnings)

    # --- the cache ---

    def _prefill(self, run: Run, messages: list[Message], n_answer: int) -> Cache:
        """Brings the cache to the end of the rendered conversation; what is there already is not computed again."""
        plan = run.plan(self.llm.render(messages))
        items = plan_items(plan)
        if self._cache and self._cache.shares != run.shares and plan.media:
            self.close()  # the first video of a conversation sets which visual tokens each layer keeps
        if self._cache is None:
            self._cache = Cache(run.open(plan, self._first_text(run, plan, n_answer)), run.shares)
        same = self._cache.keep_common(items)
        rest = without(plan, same)
        cache = self._make_room(self._cache, rest, n_answer)
        cache.note(items[same:], run.append(cache.context, rest))
        return cache

    def _first_text(self, run: Run, plan: PromptPlan, n_answer: int) -> int:
        """Text tokens to make room for; a pruned context, whose point is to be small, starts with fewer."""
        least, n_visual = context_size(self.llm, plan, n_answer), count_visual(plan.pieces)
        if self.llm.config.n_ctx:
            return self.llm.config.n_ctx - n_visual
        cells = least + _SPARE_TEXT if run.prunes else max(least, _FIRST_CELLS)
        return min(self.llm.n_ctx_train, cells) - n_visual

    def _make_room(self, cache: Cache, rest: PromptPlan, n_answer: int) -> Cache:
        """The cache itself, with a larger context of the same contents when this turn would not fit."""
        context = cache.context
        n_visual = count_visual(rest.pieces)
        if context.fits(rest.n - n_visual + 1, n_visual):
            return cache
        need, fixed = context.n_cells + rest.n + 1, self.llm.config.n_ctx
        if fixed or need > self.llm.n_ctx_train:
            limit = (
                f"the context holds {context.n_ctx}" if fixed else f"the model was trained for {self.llm.n_ctx_train}"
            )
            cure = f", or load with --ctx {need} or more" if fixed else ""
            raise ContextError(f"the conversation needs {need} tokens, {limit}; start over (/reset){cure}")
        grown = context.larger(min(self.llm.n_ctx_train, 2 * need + n_answer), n_visual)
        try:
            grown.copy_from(context)
        except BaseException:
            grown.close()
            raise
        context.close()
        cache.context = grown
        return cache

    def _roll_back(self) -> None:
        """After a failed turn: forgets what it left behind the items that are known."""
        if self._cache is None:
            return
        try:
            self._cache.rewind(len(self._cache.items))
        except AimError:
            self.close()

    def close(self) -> None:
        if self._cache:
            self._cache.context.close()
            self._cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
