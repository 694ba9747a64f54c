"""A conversation: messages, and a KV cache that already holds their beginning.

Every turn renders and tokenises the whole conversation; what it has in common with the cache is kept, whatever the
chat template did to earlier answers. Prefill and sampling are elsewhere, and so is the form of a saved conversation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .config import GenerateConfig, VisualTokenConfig
from .engine.chat_cache import Cache, plan_items, without
from .engine.generate import OnText
from .engine.plan import Answer, Media, Progress, PromptPlan, Run, check_tokens, context_size
from .errors import AimError, ContextError
from .media import FrameSampling, Image, Video
from .models.pieces import MediaPiece, count_visual
from .models.prompt import Message
from .store.chat_file import (
    ChatFileError,
    check_identity,
    check_suffix,
    identity,
    media_from_dict,
    media_to_dict,
    read_chat,
    tokens_from_dict,
    tokens_to_dict,
    write_chat,
)

if TYPE_CHECKING:
    from .llm import VisionLLM

_FIRST_CELLS = 4096  # a new conversation's context, where the model allows it; it grows when full
_SPARE_TEXT = 1024


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
        if tokens is not None:
            check_tokens(llm, tokens)
        self._cache: Cache | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the system prompt."""
        self.close()
        self._messages: list[Message] = system_message(self.system)
        self._media: list[Video | Image] = []
        self._n_saved = 0  # so many of the media are stand-ins: shown before a restart, their pictures are not here
        self._planned: VisualTokenConfig | None = None  # what a budget became with the first media; later turns keep it

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
        run = Run(self.llm, self._planned or self.tokens, self.sampling, progress, self._media)
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
            self._check_pictures(plan)
            self.close()  # the first video of a conversation sets which visual tokens each layer keeps
        if self._cache is None:
            self._cache = Cache(run.open(plan, self._first_text(run, plan, n_answer)), run.shares)
        same = self._cache.keep_common(items)
        rest = without(plan, same)
        self._check_pictures(rest)
        cache = self._make_room(self._cache, rest, n_answer)
        cache.note(items[same:], run.append(cache.context, rest))
        if self.tokens is not None and self.tokens.flops_share is not None and plan.media:
            self._planned = run.tokens
        return cache

    def _check_pictures(self, plan: PromptPlan) -> None:
        """Raises ContextError where media would be encoded whose pictures were left behind at a restart."""
        for piece in plan.pieces:
            if isinstance(piece, MediaPiece) and piece.media < self._n_saved:
                raise ContextError(
                    f"{self._media[piece.media].source} would have to be encoded again, its pictures are not in the "
                    "saved conversation; start over (/reset) and attach it again"
                )

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

    # --- a conversation as a file ---

    def save(self, path: str | Path) -> Path:
        """Writes the conversation and its KV cache to a .aimchat file, which `VisionLLM.load_chat` takes up again.

        The media are in it as what the model made of them, their pictures are not. Raises UsageError, TranscriptError.
        """
        path = check_suffix(path)
        self._roll_back()
        header = {
            "model": identity(self.llm),
            "system": self.system,
            "tokens": tokens_to_dict(self.tokens),
            "planned": tokens_to_dict(self._planned),
            "generate": asdict(self.options),
            "sampling": asdict(self.sampling) if self.sampling else None,
            "messages": [asdict(m) for m in self._messages],
            "media": [media_to_dict(item) for item in self._media],
            "cache": self._cache.to_dict() if self._cache else None,
        }
        write_chat(path, header, self._cache.context.state() if self._cache else bytearray())
        return path

    @classmethod
    def load(
        cls,
        llm: VisionLLM,
        path: str | Path,
        generate: GenerateConfig | None = None,
        sampling: FrameSampling | None = None,
    ) -> Chat:
        """A saved conversation, ready for its next turn. Raises ChatFileError, ContextError, NativeError."""
        saved = read_chat(path)
        chat = None
        try:
            header = saved.header
            chat = cls(llm, tokens_from_dict(header["tokens"]), header["system"], _generate(generate, header), sampling)
            check_identity(Path(path), header["model"], identity(llm))
            chat._take(header, saved.state)
        except BaseException as e:
            if chat:
                chat.close()
            if isinstance(e, (KeyError, TypeError, ValueError, IndexError, AttributeError)):
                raise ChatFileError(f"{path}: holds a conversation in a form this version does not know; update") from e
            raise
        return chat

    def _take(self, header: dict[str, Any], state: bytearray) -> None:
        """Everything a new conversation does not have."""
        if self.sampling is None and header["sampling"]:
            self.sampling = FrameSampling(**header["sampling"])
        self._messages = [
            Message(m["role"], m["text"], [(i, kind) for i, kind in m["media"]]) for m in header["messages"]
        ]
        self._media = [media_from_dict(data) for data in header["media"]]
        self._n_saved = len(self._media)
        self._planned = tokens_from_dict(header["planned"])
        if header["cache"]:
            self._cache = Cache.from_dict(self.llm, header["cache"], state)

    def close(self) -> None:
        if self._cache:
            self._cache.context.close()
            self._cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _generate(given: GenerateConfig | None, header: dict[str, Any]) -> GenerateConfig:
    saved = header["generate"]
    return given or GenerateConfig(**{**saved, "stop": tuple(saved["stop"])})
