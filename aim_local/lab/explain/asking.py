"""One question asked of a model, with everything kept that is needed to draw what happened to its visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...config import GenerateConfig, VisualTokenConfig
from ...drawing.layers import check_pictures, stage_layers
from ...errors import ModelError, UsageError
from ...results import Answer, Trace

if TYPE_CHECKING:
    from ...engine.read import Media
    from ...engine.turns import ShouldStop
    from ...engine.watch import Progress
    from ...llm import VisionLLM
    from ...media import FrameSampling

_MAX_TOKENS = 128


@dataclass(frozen=True)
class Explanation:
    """A question, its answer, and the trace of its visual tokens (answer.trace).

    assumed: why `tokens` was taken; "" where it was asked for.
    """

    model: str
    question: str
    media: tuple[str, ...]
    tokens: VisualTokenConfig
    assumed: str
    answer: Answer = field(repr=False)

    @property
    def trace(self) -> Trace:
        return self.answer.trace


def explain(
    llm: VisionLLM,
    question: str,
    media: Sequence[Media],
    tokens: VisualTokenConfig | None = None,
    *,
    generate: GenerateConfig | None = None,
    sampling: FrameSampling | None = None,
    system: str | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Explanation:
    """Asks and keeps what can be drawn. tokens None: the paper's setting, else there would be nothing to see.

    Raises UsageError without media, and for a vision tower whose tokens cover no known patches.
    """
    if not len(media):
        raise UsageError("nothing to explain without a picture; give a clip or a picture")
    _check_tower(llm)
    asked, why = (tokens, "") if tokens is not None else assumed_tokens(llm)
    options = generate or GenerateConfig(max_tokens=_MAX_TOKENS)
    answer = llm.generate(
        question, media, asked, options, sampling=sampling, system=system, progress=progress, should_stop=should_stop
    )
    check_pictures(answer.trace)
    names = ["array" if isinstance(item, np.ndarray) else str(item) for item in media]
    return Explanation(llm.name, question, tuple(names), asked, why, answer)


def _check_tower(llm: VisionLLM) -> None:
    """Raises UsageError, before anything is computed, for a tower whose tokens cannot be drawn."""
    tower = llm.model.tower
    if tower is not None and tower.facts is None:
        raise UsageError(
            f"{llm.name}: its vision tower ({tower.projector}) does not tell which patches a visual token covers; "
            "docs/explain.md names the families that do"
        )


def assumed_tokens(llm: VisionLLM) -> tuple[VisualTokenConfig, str]:
    """What is drawn when nothing is asked, and the sentence that says so."""
    from ...engine.plan import check_tokens

    try:
        check_tokens(llm.model, VisualTokenConfig.paper())
    except (ModelError, UsageError) as e:
        only = f"no setting was asked, so token merging alone is shown ({e})"
        return VisualTokenConfig(prune_layers=None), only
    return VisualTokenConfig.paper(), "no setting was asked: the paper's is shown, which also prunes (--tokens paper)"


def _how_merged(tokens: VisualTokenConfig) -> str:
    if tokens.merge_by == "similarity":
        return ""
    together = f" in windows of {tokens.merge_window} frames" if tokens.merge_window > 1 else ""
    return f" by {tokens.merge_by}{together}"


def setting_line(found: Explanation) -> str:
    """What was done to the visual tokens, from what really happened."""
    trace, stats = found.trace, found.answer.stats
    parts = [f"{stats.n_visual} of {stats.n_visual_full} visual tokens after merging{_how_merged(found.tokens)}"]
    begins = stage_layers(trace)[1:]
    if begins:
        where = f"layer {begins[0]}" if len(begins) == 1 else f"layers {begins[0]} to {begins[-1]}"
        how = found.tokens.importance
        name = how if isinstance(how, str) else "a callable"
        ranked = f", ranked by {name}" if trace.kept[begins[0]].size else ""
        parts.append(f"pruned before {where}{ranked}")
    else:
        parts.append("none pruned")
    if found.tokens.weigh == "size":
        parts.append("merged ones weighed by their size")
    parts.append(f"prefill FLOPs {stats.flops_share:.1%} of the unreduced prompt's")
    return "; ".join(parts)
