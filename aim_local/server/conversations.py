"""The last conversations, with what is computed of them: a request that goes on with one is not prefilled anew.

A request carries its whole conversation. Where all of it but the last message is the beginning of a conversation that
is known here, with the same media, frames, system prompt and setting of visual tokens, that one is asked. Knows chats
of the library; used by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..chat import Chat, Turn
from ..config import GenerateConfig, VisualTokenConfig
from ..engine.generate import OnText, OnToken
from ..engine.intake import Sampled
from ..engine.model import Model
from ..engine.read import Media
from ..engine.turns import ShouldStop
from ..engine.watch import Progress
from ..media import FrameSampling
from ..results import Answer
from .budget import settled
from .jobs import Job
from .media.sources import Found

MIB = 2**20


class Talks(Protocol):
    """What is needed of VisionLLM."""

    @property
    def model(self) -> Model: ...

    def chat(
        self,
        tokens: VisualTokenConfig | None = None,
        system: str | None = None,
        generate: GenerateConfig | None = None,
        sampling: FrameSampling | None = None,
        *,
        rerank: bool = True,
        history: Sequence[Turn] = (),
    ) -> Chat: ...


@dataclass(frozen=True)
class Line:
    """A message as the model sees it. media: key and sampling of each item; None is the model's own."""

    role: str
    text: str
    media: tuple[tuple[str, FrameSampling | None], ...] = ()


@dataclass(frozen=True)
class Base:
    """What all turns of a conversation share. account: its client's, others do not go on with it."""

    account: str
    system: str | None
    tokens: VisualTokenConfig | None


@dataclass(eq=False)
class _Known:
    chat: Chat
    base: Base
    lines: list[Line] = field(default_factory=list)

    def rewind(self, n: int) -> None:
        if n < len(self.lines):
            self.chat.rewind(n + bool(self.base.system))
            del self.lines[n:]


@dataclass(frozen=True)
class Listeners:
    """Who is told while an answer is made."""

    on_text: OnText
    on_token: OnToken | None
    progress: Progress
    should_stop: ShouldStop


class Conversations:
    """n_kept: how many conversations, n_bytes: of all of them together. The least recently used go first."""

    def __init__(self, llm: Talks, n_kept: int = 4, n_bytes: int = 2048 * MIB) -> None:
        self._llm, self._n_kept, self._n_bytes = llm, n_kept, n_bytes
        self._known: list[_Known] = []  # the last is the most recently used

    def __len__(self) -> int:
        return len(self._known)

    def known(self) -> list[tuple[Line, ...]]:
        """What was said in each, the most recently used last."""
        return [tuple(known.lines) for known in self._known]

    @property
    def n_bytes(self) -> int:
        """Memory that they hold."""
        return sum(known.chat.n_bytes for known in self._known)

    def answer(self, job: Job, told: Listeners) -> Answer:
        """The answer to a job whose media were found. Raises what the library raises."""
        asked, found = job.asked, job.found or ()
        lines = [
            Line(turn.role, turn.text, tuple((item.key, item.sampling or asked.sampling) for item in items))
            for turn, items in zip(asked.turns, found, strict=True)
        ]
        tokens = settled(self._llm.model, asked, found)
        base, reused = Base(job.client.account, asked.system, tokens), None
        if asked.cache_prompt:
            reused = self._take(base, lines)
        known = reused or self._begin(base, job, lines[:-1])
        try:
            answer = self._ask(known, job, lines[-1], told)
        except BaseException:
            self._settle(known, keep=reused is not None)
            raise
        self._settle(known, keep=asked.cache_prompt)
        return answer

    def _ask(self, known: _Known, job: Job, question: Line, told: Listeners) -> Answer:
        asked, found = job.asked, job.found or ()
        n_before = len(known.lines)
        media = [_media(item, asked.sampling) for item in found[-1]]
        answer = known.chat.ask(
            question.text,
            media,
            asked.generate,
            told.on_text,
            told.progress,
            should_stop=told.should_stop,
            on_token=told.on_token,
        )
        known.lines += [question, Line("assistant", answer.text)]
        if answer.stats.stop_reason in ("cancelled", "interrupted"):
            known.rewind(n_before)  # nobody has heard all of it
        return answer

    def _begin(self, base: Base, job: Job, before: Sequence[Line]) -> _Known:
        asked, found = job.asked, job.found or ()
        self._drop_to(self._n_kept - 1)
        history = [
            Turn(turn.role, turn.text, [_media(item, asked.sampling) for item in items])
            for turn, items in zip(asked.turns[:-1], found[:-1], strict=True)
        ]
        chat = self._llm.chat(base.tokens, base.system, asked.generate, asked.sampling, history=history)
        return _Known(chat, base, list(before))

    def _take(self, base: Base, lines: Sequence[Line]) -> _Known | None:
        """A conversation that begins as all lines but the last do, at its end there; the longest of them."""
        n = len(lines) - 1
        if n == 0:
            return None
        suited = [known for known in self._known if known.base == base and known.lines[:n] == list(lines[:n])]
        if not suited:
            return None
        found = min(reversed(suited), key=lambda known: len(known.lines))  # what is behind is forgotten: the least
        self._known.remove(found)
        try:
            found.rewind(n)
        except BaseException:
            found.chat.close()
            raise
        return found

    def _settle(self, known: _Known, *, keep: bool) -> None:
        """After a turn: keeps the conversation, as the most recently used, or frees it."""
        if not keep or not known.lines or not self._n_kept or known.chat.n_bytes > self._n_bytes:
            known.chat.close()
            return
        self._known.append(known)
        self._drop_to(self._n_kept)
        while self.n_bytes > self._n_bytes:
            self._drop_to(len(self._known) - 1)

    def _drop_to(self, n: int) -> None:
        while len(self._known) > max(0, n):
            self._known.pop(0).chat.close()

    def close(self) -> None:
        self._drop_to(0)


def _media(item: Found, sampling: FrameSampling | None) -> Media:
    own = item.sampling or sampling
    return Sampled(item.media, own) if own is not None else item.media
