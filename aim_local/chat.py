"""A conversation: messages, and a KV cache that already holds their beginning.

Every turn renders and tokenises the whole conversation; what it has in common with the cache is kept, whatever the
chat template did to earlier answers. Where visual tokens are pruned, a question has those of earlier turns ranked
again, as if the whole conversation were prefilled anew. Prefill and sampling are elsewhere, and so is the form of a
saved conversation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .arguments import checked, one_of, several
from .config import BY_QUESTION, GenerateConfig, VisualTokenConfig
from .engine.ahead import Ahead
from .engine.chat_cache import Cache, Item, check_fits, n_turn_text, plan_items, split_plan
from .engine.contexts import Context, open_context, owned
from .engine.generate import OnText, OnToken, check_sampling, cut_warning
from .engine.generate import generate as generate_answer
from .engine.intake import Prepared
from .engine.model import Model
from .engine.notes import unreduced_notes
from .engine.plan import Plan, asked_cells, check_tokens, context_size, default_tokens, frames_that_fit, plan_prompt
from .engine.prefill import NOTHING_EARLIER, Earlier, Filled, answered, earlier_of, prefill
from .engine.read import Begun, Media, Reading, check_list, check_media
from .engine.turns import ShouldStop, Turns
from .engine.watch import Progress, Watch
from .errors import AimError, ClosedError, ContextError, NativeError, NotFiniteError, ServerLostError, UsageError
from .media import FrameSampling, Image, MediaShape, Video
from .models.pieces import MediaPiece, TokenGrid, TokenGroup
from .models.prompt import Message, check_text, references, system_message
from .native.owned import NotCopied
from .paths import Name, home_path_of
from .results import Answer
from .store.chat_file import (
    ChatFileError,
    check_identity,
    check_suffix,
    identity,
    raise_damaged,
    read_chat,
    read_header,
    tokens_from_dict,
    tokens_to_dict,
    write_chat,
)
from .store.toy import toy_line

_FIRST_CELLS = 4096  # a new conversation's context, where the model allows it; it grows when full
_SPARE_TEXT = 1024
_FIRST_SURVIVORS = "this and later questions see the visual tokens that earlier ones kept: "


@dataclass(frozen=True, eq=False)
class Turn:
    """What somebody said before. role: "user" or "assistant". media: shown with it, paths, arrays or `Sampled`."""

    role: str
    text: str
    media: Sequence[Media | Prepared] = ()

    def __post_init__(self) -> None:
        one_of("the role of a turn", self.role, ("user", "assistant"))
        check_text("the text of a turn", self.text)
        if len(check_list("media of a turn", self.media)) and self.role == "assistant":
            raise UsageError("a turn of the assistant has media; give them with a turn of the user")


@dataclass(frozen=True, eq=False)
class _Shown:
    """Media of a conversation. shapes: of all; items: those whose pictures are here, by number.

    Media shown before a restart have no pictures any more.
    """

    shapes: tuple[MediaShape, ...] = ()
    items: tuple[tuple[int, Video | Image], ...] = ()

    def and_then(self, reading: Reading) -> _Shown:
        n = len(self.shapes)
        new = tuple((n + i, item) for i, item in enumerate(reading.items))
        return _Shown((*self.shapes, *(item.shape for item in reading.items)), (*self.items, *new))

    def first(self, n: int) -> _Shown:
        return _Shown(self.shapes[:n], tuple((i, item) for i, item in self.items if i < n))


@dataclass(frozen=True, eq=False)
class _Talk:
    """What was said; a turn replaces it as a whole when it is done, so another thread never reads half of one.

    planned: what a budget became with the first media; later turns keep it. groups, grids: where the visual tokens that
    a later turn ranks again come from, as in Trace; () where none are, and after a restart. told_kept: whether the user
    was told that later questions see what earlier ones kept.
    """

    messages: tuple[Message, ...]
    shown: _Shown = _Shown()
    planned: VisualTokenConfig | None = None
    groups: tuple[TokenGroup, ...] = ()
    grids: tuple[TokenGrid, ...] = ()
    told_kept: bool = False


class Chat(NotCopied):
    """A conversation. `ask` streams; earlier turns stay in the KV cache. `close()` frees it and ends the conversation:
    what was said can be read from then on, all else raises ClosedError.

    Threads: as for VisionLLM, whose turn it takes. Callbacks of a turn may read it and ask other conversations, not
    change this one (UsageError). A turn that fails, whenever that is, leaves the conversation as it was.

    rerank: visual tokens of earlier turns are ranked again for each question, where any are pruned; the answer is that
    of a fresh prefill of the whole conversation, and its trace covers all its visual tokens. Only the layers that see
    fewer of them are computed again, from rows held in memory (`Stats.held_bytes`). False, or rows that a saved
    conversation lacks: later questions see the tokens that earlier ones kept, and a warning says so once.
    """

    @checked
    def __init__(
        self,
        model: Model,
        turns: Turns,
        tokens: VisualTokenConfig | None,
        system: str | None,
        generate: GenerateConfig,
        sampling: FrameSampling | None,
        rerank: bool = True,
        history: Sequence[Turn] = (),
    ) -> None:
        self.model, self._turns, self._rerank = model, turns, rerank
        self._unread = _checked_history(history)
        if system is not None:
            check_text("system", system)
        self.system, self.options, self.sampling = system, generate, sampling
        self.tokens = tokens
        if tokens is not None:
            check_tokens(model, tokens)
        self._cache: Cache | None = None
        self._cache_file: Path | None = None  # that the beginning of the cache was read from
        self._busy = self._is_closed = False
        self._talk = self._empty()

    def reset(self) -> None:
        """Forgets everything but the system prompt."""
        with self._alone():
            self._drop_cache()
            self._talk, self._unread = self._empty(), ()

    @checked
    def rewind(self, n_messages: int) -> None:
        """Forgets all but the first n_messages of `messages`; what is computed of those stays.

        Raises UsageError for a number that is not there, or that would leave out the system prompt.
        """
        with self._alone():
            talk, least = self._talk, len(self._empty().messages)
            if not least <= n_messages <= len(talk.messages):
                raise UsageError(f"n_messages is {n_messages!r}; give a number from {least} to {len(talk.messages)}")
            messages = talk.messages[:n_messages]
            shown = talk.shown.first(sum(len(message.media) for message in messages))
            planned = talk.planned if shown.shapes else None
            self._unread = ()
            self._talk = replace(talk, messages=messages, shown=shown, planned=planned)
            self._roll_back()
            if n_messages == least:
                self._drop_cache()
            self._forget_unsaid()

    def _empty(self) -> _Talk:
        return _Talk(tuple(system_message(self.system)))

    @contextmanager
    def _alone(self, should_stop: ShouldStop | None = None) -> Iterator[Callable[[], None]]:
        """The model's turn, for what changes this conversation.

        Raises ClosedError after `close`, and UsageError in a callback of its own turn.
        """
        with self._turns.take(should_stop) as check:
            if self._is_closed:
                raise ClosedError("the conversation is closed; start another one with the model's chat()")
            if self._busy:
                raise UsageError(
                    "a callback of a conversation's turn cannot change that conversation; end the turn first "
                    "(should_stop, or an exception)"
                )
            try:
                self._busy = True
                yield check
            finally:
                self._busy = False

    @property
    def rerank(self) -> bool:
        """Whether visual tokens of earlier turns are ranked again for each question."""
        return self._rerank

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as plain data: role, content and the sources of the media shown with each turn.

        A history is part of it from the first question on.
        """
        talk = self._talk
        return [
            {"role": m.role, "content": m.text, "media": [talk.shown.shapes[i].source for i, _ in m.media]}
            for m in talk.messages
        ]

    @property
    def used(self) -> int:
        """Tokens in the context."""
        cache = self._cache
        return cache.context.n_cells if cache else 0

    @property
    def n_ctx(self) -> int:
        cache = self._cache
        return cache.context.n_ctx if cache else 0

    @property
    def n_bytes(self) -> int:
        """Memory of its KV cache, the rows beside it, and the pictures that were shown."""
        cache = self._cache
        own = cache.context.kv_bytes() + cache.context.held_bytes() if cache else 0
        return own + sum(item.n_bytes for _, item in self._talk.shown.items)

    @property
    def settled_tokens(self) -> VisualTokenConfig | None:
        """Which visual tokens are kept; None while that is open: nothing was asked, and nothing was shown."""
        talk = self._talk
        if not talk.shown.shapes:
            return self.tokens
        return talk.planned or self.tokens or default_tokens(self.model, talk.shown.shapes)

    @property
    def shows_media(self) -> bool:
        return bool(self._talk.shown.shapes)

    @checked
    def use_tokens(self, tokens: VisualTokenConfig) -> None:
        """Which visual tokens are kept of the media to come. Raises UsageError when the conversation shows some."""
        with self._alone():
            if self.shows_media:
                raise UsageError(
                    "the media of this conversation were reduced in one way; start a new conversation for another"
                )
            check_tokens(self.model, tokens)
            self.tokens = tokens

    @checked
    def ask(
        self,
        question: str,
        media: Sequence[Media | Prepared] = (),
        generate: GenerateConfig | None = None,
        on_text: OnText | None = None,
        progress: Progress | None = None,
        *,
        should_stop: ShouldStop | None = None,
        on_token: OnToken | None = None,
    ) -> Answer:
        """One turn. Ctrl-C or should_stop during the answer keeps what was said so far; before it, the turn is taken
        back (KeyboardInterrupt, CancelledError). on_token: as in VisionLLM.generate."""
        start, options = time.perf_counter(), generate or self.options
        check_text("question", question)
        with self._alone(should_stop) as check:
            check_sampling(self.model.text.llama, options, Watch(check=check))
            try:
                return self._ask(
                    Turn("user", question, media), options, on_text, on_token, Watch(progress, check), start
                )
            except BaseException as e:
                came_from = self._cache_file
                self._roll_back()
                if came_from and isinstance(e, NotFiniteError):
                    raise ChatFileError(
                        f"{came_from}: what it says of the conversation so far leads to no answer: its KV cache is "
                        f"damaged, or the model is ({e}); start a new conversation to tell which"
                    ) from e
                raise

    def _ask(
        self,
        question: Turn,
        options: GenerateConfig,
        on_text: OnText | None,
        on_token: OnToken | None,
        watch: Watch,
        start: float,
    ) -> Answer:
        turns, talk = (*self._unread, question), self._talk
        check_media(self.model, question.media)
        with closing(Begun(self.model, [item for turn in turns for item in turn.media], self.sampling, watch)) as begun:
            self._plan(turns, begun.shapes)  # what cannot be is told before the tower is at work
            reading = begun.finish()
            plan, new = self._plan(turns, [item.shape for item in reading.items])
            shown = talk.shown.and_then(reading)
            cache, filled, added, kept = self._prefill(plan, shown, reading, options.max_tokens, watch)
            not_kept = begun.keep()
        n_before = cache.context.n_past
        generated = generate_answer(cache.context, options, on_text, watch=watch, on_token=on_token)
        decoded = generated.tokens[: cache.context.n_past - n_before]  # the last token drawn is not in the cache
        cache.note([*added, *decoded], [*filled.positions, *[1] * len(decoded)])
        planned = talk.planned
        if self.tokens is not None and self.tokens.flops_share is not None and plan.media:
            planned = plan.tokens
        told = self.model.warnings if not any(m.role == "assistant" for m in talk.messages) else []  # once is enough
        said = (*talk.messages, *new, Message("assistant", generated.text))
        sources = (tuple(filled.trace.groups), tuple(filled.trace.grids)) if cache.context.can_rank_again else ((), ())
        self._talk = _Talk(said, shown, planned, *sources, told_kept=talk.told_kept or bool(kept))
        self._unread = ()
        toy, is_toy = self._toy(talk, shown)
        seen = any(shape.kind == "video" for shape in talk.shown.shapes)
        whole = [] if seen else unreduced_notes(self.model, [item.shape for item in reading.items], self.tokens)
        warnings = [
            *toy,
            *told,
            *whole,
            *reading.warnings,
            *not_kept,
            *kept,
            *cut_warning(cache.context, generated, options),
        ]
        stats = answered(filled.stats, generated, start)
        return Answer(generated.text, generated.tokens, stats, filled.trace, warnings, is_toy, generated.logprobs)

    def _toy(self, talk: _Talk, shown: _Shown) -> tuple[list[str], bool]:
        """What is said of media that the bundled toy does not know, once for each; and whether any are shown."""
        strange = self.model.beyond_toy(shown.shapes)
        before = {shape.digest for shape in talk.shown.shapes}
        new = [shape.source for shape in strange if shape.digest not in before]
        return [toy_line(new)] if new else [], bool(strange)

    def _plan(self, turns: Sequence[Turn], shapes: Sequence[MediaShape]) -> tuple[Plan, list[Message]]:
        """The plan of the conversation with more turns, and those turns. shapes: of their media, in order."""
        talk, new, at = self._talk, list[Message](), 0
        for turn in turns:
            own = shapes[at : at + len(turn.media)]
            new.append(Message(turn.role, turn.text, references(own, len(talk.shown.shapes) + at)))
            at += len(own)
        every = [*talk.shown.shapes, *shapes]
        rendered = self.model.render([*talk.messages, *new])
        plan = plan_prompt(self.model, rendered, every, talk.planned or self.tokens, len(talk.shown.shapes))
        before = [*talk.messages, *new[:-1]]
        return self._with_question(plan, before, every[: len(every) - len(new[-1].media)]), new

    def _with_question(self, plan: Plan, before: Sequence[Message], shapes: Sequence[MediaShape]) -> Plan:
        """The plan, with the rows of its last turn alone as the question, where earlier turns have asked others."""
        if plan.tokens.importance not in BY_QUESTION or not any(m.role == "assistant" for m in before):
            return plan
        rendered = self.model.render(before, answer_next=False)
        earlier = plan_prompt(self.model, rendered, shapes, plan.tokens)
        return replace(plan, n_query=n_turn_text(plan_items(earlier), plan_items(plan)))

    # --- the cache ---

    def _prefill(
        self, plan: Plan, shown: _Shown, reading: Reading, n_answer: int, watch: Watch
    ) -> tuple[Cache, Filled, list[Item], list[str]]:
        """Brings the context to the end of the plan; what is there already is not computed again, or ranked again only.

        The items that were appended come back: noting them is the end of the turn, so a turn that fails before can be
        taken back. And a warning where earlier visual tokens are not ranked again.
        """
        items = plan_items(plan)
        if self._cache and not self._cache.suits(plan):
            self._check_pictures(plan, shown)
            self._drop_cache()  # the first video of a conversation sets which visual tokens each layer keeps
        if self._cache is None:
            self._cache = Cache(self._open(plan, n_answer), plan.shares)
        same = self._cache.keep_common(items, max(1, plan.n_query))
        done, rest = split_plan(plan, same)
        self._check_pictures(rest, shown)
        cache = self._make_room(self._cache, rest, n_answer)
        first = len(shown.shapes) - len(reading.items)
        rows = {first + i: known for i, known in enumerate(reading.rows)}
        earlier = self._earlier(cache.context, done)
        filled = prefill(self.model, rest, dict(shown.items), cache.context, watch, reading, rows, earlier)
        stats = replace(
            filled.stats,
            n_reused=done.n,
            n_reused_visual=done.n_visual,
            n_reused_visual_full=done.n_visual_full,
        )
        filled = replace(filled, stats=stats)
        kept = self._kept_warning(cache, done) if not earlier.pieces else []
        return cache, filled, items[same:], kept

    def _open(self, plan: Plan, n_answer: int) -> Context:
        return open_context(self.model, plan, self._first_text(plan, n_answer), hold=self._rerank)

    def _earlier(self, context: Context, done: Plan) -> Earlier:
        """What is ranked again. done: the part of the plan that the context holds."""
        if not done.media or not context.can_rank_again:
            return NOTHING_EARLIER
        return earlier_of(done, self._talk.groups, self._talk.grids)

    def _kept_warning(self, cache: Cache, done: Plan) -> list[str]:
        """Once, where the question sees what earlier ones kept."""
        if not done.media or min(cache.shares) == 1 or self._talk.told_kept:
            return []
        why = "the saved conversation has no rows to rank them again" if self._rerank else "re-ranking is off"
        return [_FIRST_SURVIVORS + why]

    def _check_pictures(self, plan: Plan, shown: _Shown) -> None:
        """Raises ContextError where media would be encoded whose pictures were left behind at a restart."""
        here = dict(shown.items)
        for piece in plan.pieces:
            if isinstance(piece, MediaPiece) and piece.media not in here:
                raise ContextError(
                    f"{shown.shapes[piece.media].source} would have to be encoded again, its pictures are not in the "
                    "saved conversation; start a new conversation and attach it again"
                )

    def _first_text(self, plan: Plan, n_answer: int) -> int:
        """Text tokens to make room for; a pruned context, whose point is to be small, starts with fewer."""
        least, fixed = context_size(self.model, plan, n_answer), asked_cells(self.model)
        if fixed:
            return fixed - plan.n_visual
        cells = least + _SPARE_TEXT if plan.staged else max(least, _FIRST_CELLS)
        return min(self.model.n_ctx_train, cells) - plan.n_visual

    def _make_room(self, cache: Cache, rest: Plan, n_answer: int) -> Cache:
        """The cache itself, with a larger context of the same contents when this turn would not fit."""
        context = cache.context
        if context.fits(rest.n_text + 1, rest.n_visual):
            return cache
        need, fixed, trained = context.n_cells + rest.n + 1, self.model.config.n_ctx, self.model.n_ctx_train
        if fixed or need > trained:
            limit = f"the context holds {context.n_ctx}" if fixed else f"the model was trained for {trained}"
            cure = f", or load with n_ctx={need} or more" if fixed else ""
            n_frames = frames_that_fit(rest, (context.n_ctx if fixed else trained) - context.n_cells - 1)
            less = f"use n_frames={n_frames} or fewer, or " if n_frames else ""
            raise ContextError(f"the conversation needs {need} tokens, {limit}; {less}start a new conversation{cure}")
        grown = owned(self.model, context.larger(min(trained, 2 * need + n_answer), rest.n_visual))
        try:
            grown.copy_from(context)
        except BaseException:
            grown.close()
            raise
        cache.context = grown
        context.close()
        return cache

    def _roll_back(self) -> None:
        """After a failed turn: forgets what it left behind the items that are known, and a context it has begun."""
        if self._cache is None:
            return
        try:
            self._cache.rewind(len(self._cache.items))
        except AimError:
            self._drop_cache()
        else:
            if not self._cache.items:
                self._drop_cache()

    def _forget_unsaid(self) -> None:
        """Forgets the tokens that no later prompt will have.

        An answer may be other tokens in the next prompt, or a template may leave out a part of it.
        """
        if self._cache is None:
            return
        talk = self._talk
        rendered = self.model.render(talk.messages, answer_next=False)
        plan = plan_prompt(self.model, rendered, talk.shown.shapes, talk.planned or self.tokens)
        self._cache.keep_common(plan_items(plan), 0)

    def _drop_cache(self) -> None:
        cache, self._cache, self._cache_file = self._cache, None, None
        if cache:
            cache.context.close()

    @checked
    def encode_ahead(self, item: Media, sampling: FrameSampling | None = None) -> Ahead:
        """As VisionLLM.encode_ahead; give it to `ask` in the place of the path.

        sampling: None for the conversation's.
        """
        return Ahead(self.model, self._turns, item, sampling or self.sampling)

    # --- a conversation as a file ---

    def save(self, path: Name) -> Path:
        """Writes the conversation and its KV cache to a .aimchat file, which `VisionLLM.load_chat` takes up again.

        The media are in it as what the model made of them, their pictures are not. Raises UsageError, TranscriptError.
        """
        path = check_suffix(path)
        with self._alone():
            self._roll_back()
            if self.model.text.llama.n_window:  # they cannot go back once they are saved
                self._forget_unsaid()
            write_chat(path, self._header(), self._cache.context.state() if self._cache else bytearray())
        return path

    def _header(self) -> dict[str, Any]:
        return {
            "model": _identity(self.model),
            "system": self.system,
            "tokens": tokens_to_dict(self.tokens),
            "planned": tokens_to_dict(self._talk.planned),
            "generate": asdict(self.options),
            "sampling": asdict(self.sampling) if self.sampling else None,
            "rerank": self._rerank,
            "messages": [asdict(m) for m in self._talk.messages],
            "media": [shape.to_dict() for shape in self._talk.shown.shapes],
            "cache": self._cache.to_dict() if self._cache else None,
        }

    @classmethod
    @checked
    def load(
        cls,
        model: Model,
        turns: Turns,
        path: Name,
        generate: GenerateConfig | None = None,
        sampling: FrameSampling | None = None,
        rerank: bool | None = None,
    ) -> Chat:
        """A saved conversation, ready for its next turn. Raises ChatFileError, ContextError."""
        where = home_path_of(path, "the saved conversation")
        header = read_header(where)
        with turns.take():
            try:
                check_identity(where, header["model"], _identity(model), shows_media=bool(header["media"]))
                if header["cache"]:
                    check_fits(model, header["cache"], header["n_state"])
                chat = cls._of_header(model, turns, header, generate, sampling, rerank)
            except (ChatFileError, ContextError, UsageError) as e:
                raise_damaged(where)
                raise e if isinstance(e, ChatFileError) else ChatFileError(f"{where}: {e}") from e
            saved = read_chat(where)
            if saved.header != header:
                raise ChatFileError(f"{where}: was replaced while it was read; try again")
            try:
                chat._take_cache(header, saved.state)
                chat._cache_file = where if chat._cache else None
            except (ServerLostError, ClosedError):
                raise
            except NativeError as e:
                raise ChatFileError(f"{where}: {e}") from e
        return chat

    @classmethod
    def _of_header(
        cls,
        model: Model,
        turns: Turns,
        header: dict[str, Any],
        generate: GenerateConfig | None,
        sampling: FrameSampling | None,
        rerank: bool | None,
    ) -> Chat:
        """A saved conversation without its KV cache. Raises UsageError for options that cannot be."""
        again = bool(header.get("rerank", True)) if rerank is None else rerank
        if sampling is None and header["sampling"]:
            sampling = FrameSampling(**header["sampling"])
        tokens, options = tokens_from_dict(header["tokens"]), _generate(generate, header)
        chat = cls(model, turns, tokens, header["system"], options, sampling, again)
        messages = [Message(m["role"], m["text"], [(i, kind) for i, kind in m["media"]]) for m in header["messages"]]
        shapes = [MediaShape.from_dict(data) for data in header["media"]]
        chat._talk = _Talk(tuple(messages), _Shown(tuple(shapes)), tokens_from_dict(header["planned"]))
        return chat

    def _take_cache(self, header: dict[str, Any], state: bytearray) -> None:
        """Raises ContextError, NativeError."""
        if header["cache"]:
            n_answer = min(self.options.max_tokens, self.model.n_ctx_train)
            data, hold = header["cache"], self._rerank
            self._cache = Cache.from_dict(self.model, data, state, hold=hold, n_answer=n_answer)

    def close(self) -> None:
        """Frees the KV cache; nothing can be asked any more. Idempotent.

        A closed model has freed it already, and a forked process leaves it to its parent.
        """
        if self._turns.is_forked:
            return
        try:
            with self._alone():
                self._drop_cache()
                self._is_closed = True
        except ClosedError:
            self._cache = None

    def __repr__(self) -> str:
        talk = self._talk
        return f"Chat({self.model.name!r}, {len(talk.messages)} messages, {self.used} tokens)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _checked_history(history: Sequence[Turn]) -> tuple[Turn, ...]:
    """Raises UsageError."""
    turns = several("the history", history, "give a list of turns, [] for none")
    for turn in turns:
        if not isinstance(turn, Turn):
            raise UsageError(f"a turn of the history is {turn!r:.80}; give aim_local.Turn('user', text)")
    return turns


def _identity(model: Model) -> dict[str, Any]:
    return identity(model.paths, model.text.architecture, model.config)


def _generate(given: GenerateConfig | None, header: dict[str, Any]) -> GenerateConfig:
    saved = header["generate"]
    return given or GenerateConfig(**{**saved, "stop": tuple(saved["stop"])})
