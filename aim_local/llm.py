"""VisionLLM: a language model with its vision tower, and what is done with it: prefill, generate, score, chat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import store
from .chat import Chat, system_message
from .config import GenerateConfig, LoadConfig, VisualTokenConfig
from .engine.generate import OnText
from .engine.plan import Answer, Media, Prefill, Progress, Run
from .engine.scoring import Scored, score
from .errors import UsageError
from .media import FrameSampling
from .models.base import make_template
from .models.prompt import Message, mark_raw
from .models.tiles import VisionTower
from .native.llama import TextModel


class VisionLLM:
    """Loads a model once; contexts are made per prompt or conversation, when their sizes are known.

    Use `load`, and `close()` or `with`.
    """

    def __init__(self, paths: store.ModelPaths, config: LoadConfig) -> None:
        self.name, self.paths, self.config = paths.name, paths, config
        with ExitStack() as stack:
            self.text = TextModel(paths.model, config)
            stack.callback(self.text.close)
            self.vision = VisionTower(paths.mmproj, self.text) if paths.mmproj else None
            if self.vision:
                stack.callback(self.vision.close)
            self._template = make_template(self.text, self.vision)
            self._owned = stack.pop_all()

    @classmethod
    def load(
        cls, model: str | Path | None = None, mmproj: str | Path | None = None, config: LoadConfig | None = None
    ) -> Self:
        """Loads weights.

        model: name in the local store, GGUF path, or folder written by `convert`; None is the bundled demo model.
        mmproj: GGUF of the vision tower, where `model` is a bare GGUF. Raises ModelError.
        """
        return cls(store.resolve(model, mmproj), config or LoadConfig())

    # --- facts ---

    @property
    def architecture(self) -> str:
        return self.text.architecture

    @property
    def has_vision(self) -> bool:
        return self.vision is not None

    @property
    def n_ctx_train(self) -> int:
        return self.text.n_ctx_train

    @property
    def default_frames(self) -> int:
        """Frames a video is sampled to when nothing is asked."""
        return self.vision.default_frames if self.vision else 0

    def description(self) -> dict[str, Any]:
        """Plain facts for JSON."""
        return {
            "name": self.name,
            "architecture": self.architecture,
            "model": str(self.paths.model),
            "mmproj": str(self.paths.mmproj) if self.paths.mmproj else None,
            "projector": self.vision.projector if self.vision else None,
            "n_layer": self.text.n_layer,
            "n_embd": self.text.n_embd,
            "n_vocab": self.text.n_vocab,
            "n_ctx_train": self.n_ctx_train,
        }

    # --- what is done with it ---

    def prefill(
        self,
        prompt: str,
        media: Sequence[Media] = (),
        tokens: VisualTokenConfig | None = None,
        raw: bool = False,
        *,
        sampling: FrameSampling | None = None,
        system: str | None = None,
        progress: Progress | None = None,
    ) -> Prefill:
        """Next-token logits after a prompt, in a fresh context.

        raw=False: prompt is the user's question, put through the chat template, media first. raw=True: prompt is the
        final text with one `<__media__>` marker per media item, in order.
        """
        run = Run(self, tokens, sampling, progress)
        rendered = self._render(run, prompt, media, raw, system)
        with ExitStack() as stack:
            context = run.start(rendered, n_answer=1)
            stack.callback(context.close)
            return Prefill(context.logits(), run.trace, run.stats, run.warnings)

    def generate(
        self,
        prompt: str,
        media: Sequence[Media] = (),
        tokens: VisualTokenConfig | None = None,
        generate: GenerateConfig | None = None,
        on_text: OnText | None = None,
        raw: bool = False,
        *,
        sampling: FrameSampling | None = None,
        system: str | None = None,
        progress: Progress | None = None,
    ) -> Answer:
        """Answers one prompt in a fresh context. on_text gets the answer piece by piece."""
        start, options = time.perf_counter(), generate or GenerateConfig()
        run = Run(self, tokens, sampling, progress)
        rendered = self._render(run, prompt, media, raw, system)
        with ExitStack() as stack:
            context = run.start(rendered, n_answer=options.max_tokens)
            stack.callback(context.close)
            answer = run.generate(context, options, on_text, start)
        return Answer(answer.text, answer.tokens, run.stats, run.trace, run.warnings)

    def score(
        self,
        prompt: str,
        media: Sequence[Media] = (),
        answer_tokens: Sequence[int] | None = None,
        tokens: VisualTokenConfig | None = None,
        generate: GenerateConfig | None = None,
        raw: bool = False,
        *,
        n_own: int | None = None,
        sampling: FrameSampling | None = None,
        system: str | None = None,
        progress: Progress | None = None,
    ) -> Scored:
        """Next-token logits along a given answer (teacher forcing), and the model's own answer, in one prefill.

        answer_tokens: the n tokens to follow, [] for the logits after the prompt alone; None follows the model's own
        answer, its first n_own tokens (None: all). Scored.logits: float32 [n + 1, n_vocab], row i after the first i.
        """
        start, options = time.perf_counter(), generate or GenerateConfig()
        run = Run(self, tokens, sampling, progress)
        rendered = self._render(run, prompt, media, raw, system)
        return score(run, rendered, answer_tokens, options, n_own, start)

    def chat(
        self,
        tokens: VisualTokenConfig | None = None,
        system: str | None = None,
        generate: GenerateConfig | None = None,
        sampling: FrameSampling | None = None,
    ) -> Chat:
        """A conversation that keeps its history and its KV cache."""
        return Chat(self, tokens, system, generate or GenerateConfig(), sampling)

    def load_chat(
        self, path: str | Path, generate: GenerateConfig | None = None, sampling: FrameSampling | None = None
    ) -> Chat:
        """Takes up a conversation that `Chat.save` wrote; its media are neither needed nor encoded again.

        generate, sampling: None takes those it was saved with. Raises ChatFileError: damaged, or of another model.
        """
        return Chat.load(self, path, generate, sampling)

    def render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        """A conversation as prompt text with media marks (see prompt.py)."""
        return self._template.render(messages, answer_next=answer_next)

    def _render(self, run: Run, prompt: str, media: Sequence[Media], raw: bool, system: str | None) -> str:
        run.read(media)
        if raw:
            if system is not None:
                raise UsageError("a raw prompt is final; put the system text into it and leave system out")
            return mark_raw(prompt, len(run.media))
        return self.render([*system_message(system), Message("user", prompt, run.media_refs(0))])

    # --- life cycle ---

    def close(self) -> None:
        """Frees the weights. Chats made from this model must not be used afterwards."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
