"""VisionLLM: a language model with its vision tower, and what is done with it: prefill, generate, score, chat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from .arguments import checked, several
from .chat import Chat, Turn
from .config import GenerateConfig, LoadConfig, VisualTokenConfig
from .engine.ahead import Ahead
from .engine.contexts import Context, open_context
from .engine.generate import Generated, OnText, OnToken, check_sampling, cut_warning
from .engine.generate import generate as generate_answer
from .engine.intake import Prepared
from .engine.model import Model, open_model
from .engine.notes import load_notes, unreduced_notes
from .engine.plan import Plan, check_tokens, context_size, plan_prompt
from .engine.prefill import Filled, answered, prefill
from .engine.read import Begun, Media
from .engine.scoring import check_forced, force
from .engine.turns import ShouldStop, Turns
from .engine.watch import Progress, Watch
from .errors import UsageError
from .media import FrameSampling, MediaShape
from .models.prompt import Message, check_text, mark_raw, references, system_message
from .models.text import TextModel
from .native.owned import NotCopied
from .paths import Name
from .results import Answer, Prefill, Scored
from .store.toy import toy_line


@dataclass(frozen=True)
class _Prompt:
    """What is asked, as the methods of VisionLLM take it."""

    text: str
    media: Sequence[Media | Prepared]
    raw: bool
    system: str | None
    tokens: VisualTokenConfig | None
    sampling: FrameSampling | None

    def __post_init__(self) -> None:
        check_text("prompt", self.text)
        if self.system is not None:
            check_text("system", self.system)


@dataclass(frozen=True, eq=False)
class _Started:
    """A prompt in a context of its own."""

    context: Context
    filled: Filled
    warnings: list[str]
    watch: Watch
    toy: bool


class VisionLLM(NotCopied):
    """Loads a model once; contexts are made per prompt or conversation, when their sizes are known.

    Use `load`, and `close()` or `with`.

    Threads: any thread may call, of a model and of its chats; calls are served one at a time, in the order they came.
    `should_stop` of a call is asked between steps and about every 50 ms while it computes (on a GPU between batches);
    once it is true, an answer ends with what it has (`stats.stop_reason` "cancelled"), a call without an answer yet
    raises CancelledError and leaves a conversation as it was. Ctrl-C does the same in the main thread
    ("interrupted", KeyboardInterrupt). `close()` in one thread ends the call of another with ClosedError. Callbacks run
    in the calling thread; on_text, progress and importance may call the model, but neither close it nor change the
    conversation whose turn is running, should_stop may call nothing of it. A forked process cannot use it (UsageError).
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.turns = Turns(model.name, model.text.llama.stop, model.contexts.free_dropped)
        model.contexts.on_drop = self.turns.tidy

    @classmethod
    @checked
    def load(cls, model: Name | None = None, mmproj: Name | None = None, config: LoadConfig | None = None) -> Self:
        """Loads weights.

        model: name in the local store, GGUF path, or folder written by `convert`; None is the bundled demo model.
        mmproj: GGUF of the vision tower, where `model` is a bare GGUF. Raises ModelError.
        """
        return cls(open_model(model, mmproj, config))

    # --- facts ---

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def text(self) -> TextModel:
        """Its text tower: sizes, tokenizer."""
        return self.model.text

    @property
    def architecture(self) -> str:
        return self.model.text.architecture

    @property
    def has_vision(self) -> bool:
        return self.model.tower is not None

    @property
    def n_ctx_train(self) -> int:
        return self.model.n_ctx_train

    @property
    def default_frames(self) -> int:
        """Frames a video is sampled to when nothing is asked."""
        return self.model.default_frames

    @property
    def notes(self) -> list[str]:
        """What is to be said once, when it is loaded: see engine/notes.py."""
        return load_notes(self.model)

    def description(self) -> dict[str, Any]:
        """Plain facts for JSON."""
        model = self.model
        return {
            "name": model.name,
            "architecture": self.architecture,
            "model": str(model.paths.model),
            "mmproj": str(model.paths.mmproj) if model.paths.mmproj else None,
            "projector": model.tower.projector if model.tower else None,
            "n_layer": model.text.n_layer,
            "n_embd": model.text.n_embd,
            "n_vocab": model.text.n_vocab,
            "n_ctx_train": self.n_ctx_train,
        }

    # --- what is done with it ---

    @checked
    def prefill(
        self,
        prompt: str,
        media: Sequence[Media | Prepared] = (),
        tokens: VisualTokenConfig | None = None,
        raw: bool = False,
        *,
        sampling: FrameSampling | None = None,
        system: str | None = None,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Prefill:
        """Next-token logits after a prompt, in a fresh context.

        media: paths, pictures (Pillow's or uint8 [H, W, 3]) and videos (uint8 [T, H, W, 3], or a list or an iterator of
        such pictures), see media/given.py. raw=False: prompt is the user's question, put through the chat template,
        media first. raw=True: prompt is the final text with one `<__media__>` marker per media item, in order.
        """
        asked = _Prompt(prompt, media, raw, system, tokens, sampling)
        with self._started(asked, 1, progress, should_stop) as run:
            return Prefill(run.context.logits(), run.filled.trace, run.filled.stats, run.warnings)

    @checked
    def generate(
        self,
        prompt: str,
        media: Sequence[Media | Prepared] = (),
        tokens: VisualTokenConfig | None = None,
        generate: GenerateConfig | None = None,
        on_text: OnText | None = None,
        raw: bool = False,
        *,
        sampling: FrameSampling | None = None,
        system: str | None = None,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
        on_token: OnToken | None = None,
    ) -> Answer:
        """Answers one prompt in a fresh context. on_text gets the answer piece by piece.

        on_token: gets each token with its logprobs, where GenerateConfig.logprobs asks for them, before its text.
        """
        start, options = time.perf_counter(), generate or GenerateConfig()
        check_sampling(self.text.llama, options)
        asked = _Prompt(prompt, media, raw, system, tokens, sampling)
        with self._started(asked, options.max_tokens, progress, should_stop) as run:
            generated = generate_answer(run.context, options, on_text, watch=run.watch, on_token=on_token)
            return _answer(run, generated, options, start)

    @checked
    def score(
        self,
        prompt: str,
        media: Sequence[Media | Prepared] = (),
        answer_tokens: Sequence[int] | None = None,
        tokens: VisualTokenConfig | None = None,
        generate: GenerateConfig | None = None,
        raw: bool = False,
        *,
        n_own: int | None = None,
        sampling: FrameSampling | None = None,
        system: str | None = None,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Scored:
        """Next-token logits along a given answer (teacher forcing), and the model's own answer, in one prefill.

        answer_tokens: the n tokens to follow, [] for the logits after the prompt alone; None follows the model's own
        answer, its first n_own tokens (None: all). Scored.logits: float32 [n + 1, n_vocab], row i after the first i.
        """
        start, options = time.perf_counter(), generate or GenerateConfig()
        check_sampling(self.text.llama, options)
        given = check_forced(answer_tokens, n_own, self.text.n_vocab)
        asked = _Prompt(prompt, media, raw, system, tokens, sampling)
        n_given = len(given or ())
        with self._started(asked, max(options.max_tokens, n_given), progress, should_stop, max(1, n_given)) as run:
            found = force(run.context, given, options, n_own, run.watch)
            return Scored(found.logits, found.forced, _answer(run, found.generated, options, start))

    @checked
    def chat(
        self,
        tokens: VisualTokenConfig | None = None,
        system: str | None = None,
        generate: GenerateConfig | None = None,
        sampling: FrameSampling | None = None,
        *,
        rerank: bool = True,
        history: Sequence[Turn] = (),
    ) -> Chat:
        """A conversation that keeps its history and its KV cache. rerank: see Chat.

        history: what was said before, by whomever; it is read with the first question.
        """
        return Chat(self.model, self.turns, tokens, system, generate or GenerateConfig(), sampling, rerank, history)

    @checked
    def encode_ahead(self, item: Media, sampling: FrameSampling | None = None) -> Ahead:
        """Begins to decode and encode a video (a picture: to read it) in the background, for a question to come.

        Give what comes back to `generate`, or to `ask` of a chat, in the place of the path; see engine/ahead.py.
        """
        return Ahead(self.model, self.turns, item, sampling)

    @checked
    def load_chat(
        self,
        path: Name,
        generate: GenerateConfig | None = None,
        sampling: FrameSampling | None = None,
        *,
        rerank: bool | None = None,
    ) -> Chat:
        """Takes up a conversation that `Chat.save` wrote; its media are neither needed nor encoded again.

        generate, sampling, rerank: None takes those it was saved with. Raises ChatFileError: damaged, or of another
        model.
        """
        return Chat.load(self.model, self.turns, path, generate, sampling, rerank)

    @checked
    def render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        """A conversation as prompt text with media marks (see models/prompt.py)."""
        turns = several("messages", messages, "give a list of messages")
        for message in turns:
            if not isinstance(message, Message):
                raise UsageError(f"a message is {message!r:.80}; give aim_local.models.prompt.Message('user', text)")
            check_text("the text of a message", message.text)
        return self.model.render(turns, answer_next=answer_next)

    @contextmanager
    def _started(
        self, asked: _Prompt, n_answer: int, progress: Progress | None, should_stop: ShouldStop | None, n_given: int = 1
    ) -> Iterator[_Started]:
        """The way of a prompt to its first logits: read, plan, open, encode and prefill. n_given: see context_size."""
        model = self.model
        with self.turns.take(should_stop) as check:
            watch = Watch(progress, check)
            if asked.tokens is not None:
                check_tokens(model, asked.tokens)
            with closing(Begun(model, asked.media, asked.sampling, watch)) as begun:
                context_size(
                    model, self._plan(asked, begun.shapes), n_answer, n_given
                )  # told before the tower is at work
                reading = begun.finish()
                plan = self._plan(asked, [item.shape for item in reading.items])
                context = open_context(model, plan, context_size(model, plan, n_answer, n_given) - plan.n_visual)
                try:
                    items, rows = dict(enumerate(reading.items)), dict(enumerate(reading.rows))
                    filled = prefill(model, plan, items, context, watch, reading, rows)
                    shapes = [item.shape for item in reading.items]
                    strange = model.beyond_toy(shapes)
                    toy = [toy_line([shape.source for shape in strange])] if strange else []
                    whole = unreduced_notes(model, shapes, asked.tokens)
                    warnings = [*toy, *model.warnings, *whole, *reading.warnings, *begun.keep()]
                    yield _Started(context, filled, warnings, watch, bool(toy))
                finally:
                    context.close()

    def _plan(self, asked: _Prompt, shapes: Sequence[MediaShape]) -> Plan:
        if asked.raw:
            if asked.system is not None:
                raise UsageError("a raw prompt is final; put the system text into it and leave system out")
            rendered = mark_raw(asked.text, len(shapes))
        else:
            rendered = self.render([*system_message(asked.system), Message("user", asked.text, references(shapes))])
        return plan_prompt(self.model, rendered, shapes, asked.tokens)

    # --- life cycle ---

    def __repr__(self) -> str:
        return f"VisionLLM({self.name!r}, {self.architecture}, {'with' if self.has_vision else 'without'} vision)"

    def close(self) -> None:
        """Frees the weights, and the contexts of chats made from this model. A call of another thread ends first."""
        self.turns.close(self.model.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _answer(run: _Started, generated: Generated, options: GenerateConfig, start: float) -> Answer:
    stats = answered(run.filled.stats, generated, start)
    warnings = [*run.warnings, *cut_warning(run.context, generated, options)]
    return Answer(generated.text, generated.tokens, stats, run.filled.trace, warnings, run.toy, generated.logprobs)
