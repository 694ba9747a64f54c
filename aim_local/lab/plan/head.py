"""A model without its weights: what Run needs to plan a prompt, read from the heads of its files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from ... import store
from ...chat import system_message
from ...config import LoadConfig, VisualTokenConfig
from ...engine.plan import Run
from ...errors import ModelError
from ...media import Image, Video
from ...models.base import VisionHead, make_template
from ...models.prompt import Message
from ...native.llama import TextModel

if TYPE_CHECKING:
    from ...llm import VisionLLM


class ModelHead:
    """The heads of both GGUF files. Use `load`, and `close()` or `with`."""

    def __init__(self, paths: store.ModelPaths, config: LoadConfig) -> None:
        self.name, self.paths, self.config = paths.name, paths, config
        with ExitStack() as stack:
            self.text = TextModel(paths.model, config, weights=False)
            stack.callback(self.text.close)
            self.vision = VisionHead(paths.mmproj, self.text) if paths.mmproj else None
            self._template = make_template(self.text, self.vision)
            self._owned = stack.pop_all()

    @classmethod
    def load(
        cls, model: str | Path | None = None, mmproj: str | Path | None = None, config: LoadConfig | None = None
    ) -> Self:
        """Reads the heads of the files that `VisionLLM.load` would load. Raises ModelError."""
        return cls(store.resolve(model, mmproj), config or LoadConfig())

    @property
    def n_ctx_train(self) -> int:
        return self.text.n_ctx_train

    @property
    def default_frames(self) -> int:
        """Frames a video is sampled to when nothing is asked."""
        return self.vision.default_frames if self.vision else 0

    def render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        """As VisionLLM.render."""
        return self._template.render(messages, answer_next=answer_next)

    def with_types(self, type_k: str, type_v: str) -> ModelHead:
        """The same model with other KV types; it borrows this one's vocabulary. Raises UsageError."""
        from dataclasses import replace

        other = copy.copy(self)
        other.config = replace(self.config, type_k=type_k, type_v=type_v)
        other.text = copy.copy(self.text)
        other.text.config = other.config
        return other

    def close(self) -> None:
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def start_run(model: ModelHead | VisionLLM, tokens: VisualTokenConfig | None, media: list[Video | Image]) -> Run:
    """A Run that plans and opens contexts. With a head it must not encode. Raises ModelError, UsageError."""
    vision = model.vision
    if media and vision is None:
        raise ModelError(
            f"{model.name} is a text-only model, it cannot take a video or picture; name its mmproj with --mmproj, "
            "or take another model"
        )
    if media and vision is not None and vision.is_foreign:
        raise ModelError(
            f"{model.name}: the visual tokens of projector {vision.projector!r} are known to the loaded tower only; "
            "`aim-local plan` counts for llava_onevision and mlp: use `aim-local chat --stats` instead"
        )
    # a head has the parts of a VisionLLM that planning reads
    return Run(cast("VisionLLM", model), tokens, None, None, media)


def render_question(model: ModelHead | VisionLLM, run: Run, question: str, system: str | None) -> str:
    """The prompt text, as VisionLLM.prefill renders it."""
    return model.render([*system_message(system), Message("user", question, run.media_refs(0))])
