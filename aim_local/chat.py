"""A conversation: messages, and a KV cache that already holds their beginning.

Knows how a rendered conversation grows from turn to turn. Prefill and sampling are elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .blocks import Piece, TextPiece
from .config import GenerateConfig, VisualTokenConfig
from .errors import ContextError
from .media import FrameSampling, Image, Video
from .prompt import Message
from .run import Answer, Media, Progress, PromptPlan, Run, check_tokens, context_size
from .sampler import Generated, OnText
from .text import Context, Mark

if TYPE_CHECKING:
    from .llm import VisionLLM

_FIRST_CELLS = 4096  # a new conversation's context, where the model allows it; it grows when full


def system_message(system: str | None) -> list[Message]:
    return [Message("system", system)] if system else []


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
        check_tokens(llm, tokens)
        self._context: Context | None = None
        self._prompt, self._mark = "", Mark(0, 0)
        self._answer: Generated | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the system prompt."""
        self._forget_cache()
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
        return self._context.n_cells if self._context else 0

    @property
    def n_ctx(self) -> int:
        return self._context.n_ctx if self._context else 0

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
            context = self._prefill(run, [*self._messages, turn], options.max_tokens)
        except BaseException:
            del self._media[n_media:]
            self._roll_back()
            raise
        self._answer = answer = run.generate(context, options, on_text, start)
        self._messages += [turn, Message("assistant", answer.text)]
        return Answer(answer.text, answer.tokens, run.stats, run.trace, run.warnings)

    # --- the cache ---
    # holds the tokens of `_prompt` up to `_mark`, and after it those of `_answer` that were decoded

    def _prefill(self, run: Run, messages: list[Message], n_answer: int) -> Context:
        """Brings the cache to the end of the rendered conversation, reusing what is there."""
        rendered = self.llm.render(messages)
        if self._context and rendered.startswith(self._prompt):
            before, rest = self._unseen(self._context, rendered)
            plan = run.plan(rest, start=False)
            plan.pieces[:0] = before
            context = self._make_room(self._context, plan, n_answer)
        else:
            self._forget_cache()
            plan = run.plan(rendered, start=True)
            context = self._context = Context(self.llm.text, self._first_size(plan, n_answer))
        run.append(context, plan)
        self._prompt, self._mark, self._answer = rendered, context.mark(), None
        return context

    def _unseen(self, context: Context, rendered: str) -> tuple[list[Piece], str]:
        """What is not in the cache yet: an answer token that was drawn and not decoded, and the rest of the text."""
        answer = self._answer or Generated("", [])
        seen = self._prompt + answer.text
        if rendered.startswith(seen):
            missing = answer.tokens[context.n_past - self._mark.n_past :]
            return ([TextPiece(missing)] if missing else []), rendered[len(seen) :]
        context.rewind(self._mark)  # the template rewrote the answer
        return [], rendered[len(self._prompt) :]

    def _first_size(self, plan: PromptPlan, n_answer: int) -> int:
        least = context_size(self.llm, plan, n_answer)
        return self.llm.config.n_ctx or min(self.llm.n_ctx_train, max(least, _FIRST_CELLS))

    def _make_room(self, context: Context, plan: PromptPlan, n_answer: int) -> Context:
        """The context itself, or a larger one with the same contents when this turn would not fit."""
        need, fixed = context.n_cells + plan.n + 1, self.llm.config.n_ctx
        if need <= context.n_ctx:
            return context
        if fixed or need > self.llm.n_ctx_train:
            cure = f"load with --ctx {need} or more" if fixed else f"the model was trained for {self.llm.n_ctx_train}"
            raise ContextError(
                f"the conversation needs {need} tokens, the context holds {context.n_ctx}; "
                f"start over (/reset), or {cure}"
            )
        grown = Context(self.llm.text, min(self.llm.n_ctx_train, 2 * need + n_answer))
        try:
            grown.copy_from(context)
        except BaseException:
            grown.close()
            raise
        context.close()
        self._context = grown
        return grown

    def _roll_back(self) -> None:
        """After a failed turn: back to the end of the last prompt; its answer is decoded again with the next turn."""
        if self._context is None or self._mark.n_past == 0:
            self._forget_cache()
            return
        try:
            self._context.rewind(self._mark)
        except Exception:
            self._forget_cache()

    def _forget_cache(self) -> None:
        """The next turn renders and decodes the whole conversation."""
        self.close()
        self._prompt, self._mark, self._answer = "", Mark(0, 0), None

    def close(self) -> None:
        if self._context:
            self._context.close()
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
