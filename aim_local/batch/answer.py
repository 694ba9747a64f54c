"""One question of a run, answered by a loaded model: its line, and what is told beside it.

The line is the same wherever and whenever it is made; times, kernels, caches and notes about this machine are facts.
Which questions there are, and where lines go, is for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..child import reason_of
from ..config import VisualTokenConfig
from ..engine.plan import weighed_where_possible
from ..engine.read import NOT_KEPT
from ..errors import MediaError
from ..llm import VisionLLM
from ..media import FrameSampling
from ..results import Answer
from .clips import marks, seen
from .job import Settings, error_line
from .questions import Question, as_written, clip_problem

_TYPICAL_FRAMES = 32  # where a model has no number of its own
# counts of Stats that are the same on every machine; the others are facts
_COUNTS = ("n_frames", "n_images", "n_visual_full", "n_visual", "n_prompt", "n_generated", "stop_reason")


def answer(llm: VisionLLM, settings: Settings, question: Question) -> tuple[dict[str, Any], dict[str, Any]]:
    """(line, facts). What goes wrong with the question is an error line."""
    try:
        before = marks(question.clips)
        found = _asked(llm, settings.for_question(question), question)
        clips = seen(question.clips, before)
    except Exception as e:  # not only ours: whatever fails is told for this question, the others go on
        return error_line(question.id, as_written(reason_of(e), question.clips)), {}
    here = [warning for warning in found.warnings if warning in llm.model.warnings or warning.startswith(NOT_KEPT)]
    return _line(question, found, here), {"clips": clips, "notes": here, "stats": found.stats.to_dict()}


def _asked(llm: VisionLLM, settings: Settings, question: Question) -> Answer:
    problem = clip_problem(question.clips)
    if problem:
        raise MediaError(problem)
    return llm.generate(
        question.question,
        [Path(clip.path) for clip in question.clips],
        tokens=tokens_for(llm, settings),
        generate=settings.generate,
        sampling=_sampling(settings, llm.default_frames),
        system=settings.system,
    )


def tokens_for(llm: VisionLLM, settings: Settings) -> VisualTokenConfig | None:
    """Which visual tokens are kept with this model."""
    if settings.tokens is not None and settings.weigh_if_possible:
        return weighed_where_possible(llm.model, settings.tokens)
    return settings.tokens


def _sampling(settings: Settings, default_frames: int) -> FrameSampling | None:
    if all(said is None for said in (settings.frames, settings.fps, settings.start, settings.end, settings.pick)):
        return None
    n_frames = settings.frames or default_frames or _TYPICAL_FRAMES  # also the most that fps alone takes
    return FrameSampling(n_frames, settings.fps, settings.start, settings.end, settings.pick or "auto")


def _line(question: Question, found: Answer, here: Sequence[str]) -> dict[str, Any]:
    warnings = [as_written(warning, question.clips) for warning in found.warnings if warning not in here]
    counts = {name: getattr(found.stats, name) for name in _COUNTS}
    return {
        "id": question.id,
        "question": question.question,
        "text": found.text,
        "warnings": warnings,
        "toy": found.toy,
        **counts,
    }
