"""What is to be planned, and its outcome in numbers: one prompt with its media and settings on one model's head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...config import VisualTokenConfig
from ...engine.plan import Media, context_size
from ...errors import ContextError, UsageError
from ...media import FrameSampling, Video
from ...media.outline import Outline, outline_media
from ...models.pieces import count_visual
from .head import ModelHead, render_question, start_run
from .memory import Memory, Room, expect_memory, measure_room
from .sizes import Sizes, measure_sizes

PLACEHOLDER = "What happens in this video?"  # stands in where no question was given


@dataclass(frozen=True)
class Request:
    """As VisionLLM.generate takes it. n_answer: most tokens of the answer, which the context has room for."""

    prompt: str = PLACEHOLDER
    media: Sequence[Media] = ()
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


def outline_all(model: ModelHead, request: Request) -> tuple[Outline, ...]:
    """Raises MediaError, UsageError."""
    if isinstance(request.media, str):
        raise UsageError("media is one item; give a list of paths or arrays")
    if request.media and model.vision is None:
        start_run(model, None, [_nothing()])  # its error comes before a file is opened
    sampling = request.sampling or FrameSampling(n_frames=max(1, model.default_frames))
    return tuple(outline_media(item, sampling) for item in request.media)


def _nothing() -> Video:
    import numpy as np

    times, none = np.zeros(1), np.zeros(1, np.int64)
    return Video(np.zeros((1, 1, 1, 3), np.uint8), times, none, "", 0.0, 1, 0.0, (), "")


def work_out(model: ModelHead, request: Request, outlines: tuple[Outline, ...]) -> Outcome:
    """Counts and memory of a request. Raises ModelError, UsageError for settings the model cannot do."""
    run = start_run(model, request.tokens, [outline.item for outline in outlines])
    prompt = run.plan(render_question(model, run, request.prompt, request.system))
    problem = ""
    try:
        n_ctx = context_size(run.llm, prompt, request.n_answer)
    except ContextError as e:
        problem, n_ctx = str(e), prompt.n + request.n_answer + 1
    sizes = measure_sizes(model, run, prompt, outlines)
    room = measure_room(run, prompt, n_ctx - count_visual(prompt.pieces))
    return Outcome(outlines, sizes, room, expect_memory(model, sizes, room, outlines), problem)


def with_frames(request: Request, n_frames: int, default: int) -> Request:
    """The same with at most n_frames of each video."""
    sampling = request.sampling or FrameSampling(n_frames=max(1, default))
    return replace(request, sampling=replace(sampling, n_frames=n_frames))
