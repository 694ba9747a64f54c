"""What is to be planned, and its outcome in numbers: one prompt with its media and settings on one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...config import VisualTokenConfig
from ...engine.model import Model
from ...engine.plan import Plan, context_size, plan_prompt
from ...errors import ContextError, ModelError, UsageError
from ...media import FrameSampling, MediaShape
from ...media.given import MediaItem
from ...media.outline import Outline, outline_media
from ...models.prompt import Message, references, system_message
from .memory import Memory, Room, expect_memory, measure_room
from .sizes import Sizes, measure_sizes

PLACEHOLDER = "What happens in this video?"  # stands in where no question was given


@dataclass(frozen=True)
class Request:
    """As VisionLLM.generate takes it. n_answer: most tokens of the answer, which the context has room for."""

    prompt: str = PLACEHOLDER
    media: Sequence[MediaItem] = ()
    tokens: VisualTokenConfig | None = None
    sampling: FrameSampling | None = None
    system: str | None = None
    n_answer: int = 512


@dataclass(frozen=True)
class Outcome:
    """outlines: one per media item. problem: why the prompt cannot be run whatever memory there is, "" if it can."""

    outlines: tuple[Outline, ...]
    sizes: Sizes
    room: Room
    memory: Memory
    problem: str = ""

    @property
    def fits(self) -> bool:
        """Unknown memory counts as enough."""
        return not self.problem and self.memory.fits is not False


def outline_all(model: Model, request: Request) -> tuple[Outline, ...]:
    """Raises MediaError, ModelError, UsageError."""
    if isinstance(request.media, (str, Path, np.ndarray)):
        raise UsageError("media is one item; give a list of paths or arrays")
    if len(request.media):
        check_sees(model)
    sampling = request.sampling or FrameSampling(n_frames=max(1, model.default_frames))
    return tuple(outline_media(item, sampling, model.config.max_pixels) for item in request.media)


def check_sees(model: Model) -> None:
    """Raises ModelError where media cannot be planned, before a file is opened."""
    if model.tower is None:
        raise ModelError(
            f"{model.name} is a text-only model, it cannot take a video or picture; name its vision tower with "
            "mmproj=FILE, or take another model"
        )
    if model.tower.facts is None:
        raise ModelError(
            f"{model.name}: what media take with projector {model.tower.projector!r} is known to the loaded tower "
            "only; use `aim-local chat --stats` instead"
        )


def plan_request(model: Model, request: Request, shapes: Sequence[MediaShape]) -> Plan:
    """The plan of its prompt, as VisionLLM.generate makes it. shapes: of its media. Raises ModelError, UsageError."""
    messages = [*system_message(request.system), Message("user", request.prompt, references(shapes))]
    return plan_prompt(model, model.render(messages), shapes, request.tokens)


def work_out(model: Model, request: Request, outlines: tuple[Outline, ...]) -> Outcome:
    """Counts and memory of a request. Raises ModelError, UsageError for settings the model cannot do."""
    plan = plan_request(model, request, [outline.shape for outline in outlines])
    problem = ""
    try:
        n_ctx = context_size(model, plan, request.n_answer)
    except ContextError as e:
        problem, n_ctx = str(e), plan.n + request.n_answer + 1
    sizes = measure_sizes(model, plan, outlines)
    room = measure_room(model, plan, n_ctx - plan.n_visual)
    return Outcome(outlines, sizes, room, expect_memory(model, sizes, room, outlines), problem)


def with_frames(request: Request, n_frames: int, default: int) -> Request:
    """The same with at most n_frames of each video."""
    sampling = request.sampling or FrameSampling(n_frames=max(1, default))
    return replace(request, sampling=replace(sampling, n_frames=n_frames))
