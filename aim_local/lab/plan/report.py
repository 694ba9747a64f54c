"""The forecast of one prompt: outcome, suggestions, time from this machine's calibration. Plain values for JSON."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from ... import store
from ...engine.model import Model
from ...errors import ModelError
from ...media.outline import Outline
from .calibration import Choice, choose, total
from .features import conditions, features, model_shape, this_machine
from .request import Outcome, Request, outline_all, work_out
from .suggest import Suggestion, suggest, weights_alone
from .ttft import TtftChoice


@dataclass(frozen=True)
class Forecast:
    """seconds: by stage, empty without a calibration. ttft: what was chosen for a wanted time, and timed.

    notes: what the load options ask for and this machine does not have, or what is not in these numbers.
    """

    model: str
    outcome: Outcome
    suggestions: tuple[Suggestion, ...]
    choice: Choice
    seconds: dict[str, float]
    ttft: TtftChoice | None = None
    notes: tuple[str, ...] = ()

    @property
    def first_token_s(self) -> float | None:
        if self.ttft:
            return self.ttft.predicted_s
        return total(self.seconds) if self.seconds else None

    @property
    def warnings(self) -> list[str]:
        said = [line for outline in self.outcome.outlines for line in outline.warnings]
        return [*self.notes, *said, *self.choice.notes]

    @property
    def verdict(self) -> str:
        """One line."""
        memory, problem = self.outcome.memory, self.outcome.problem
        needed = f"needs about {gigabytes(memory.needed)}"
        if problem:
            return f"does not fit: {problem}"
        if memory.available is None:
            return f"{needed}; how much memory there is, this system does not say"
        verdict = "fits" if memory.fits else "does not fit"
        return f"{verdict}: {needed} of {gigabytes(memory.available)}"

    @property
    def advice(self) -> str:
        """What to do where it does not fit, "" where it does."""
        if self.outcome.fits:
            return ""
        if self.suggestions:
            return "try " + ", or ".join(f"{s.change} ({gigabytes(s.needed)})" for s in self.suggestions)
        base, available = weights_alone(self.outcome), self.outcome.memory.available
        if available is not None and base > available:
            return f"weights and program alone need {gigabytes(base)}; take a more strongly quantised or smaller model"
        return "no single change helps; combine a smaller n_frames, tokens=fast, type_k=q4_0 and type_v=q4_0"

    def to_dict(self) -> dict[str, Any]:
        sizes, room, memory = self.outcome.sizes, self.outcome.room, self.outcome.memory
        plain = {k: v for k, v in asdict(sizes).items() if k != "tokens"}
        plain["tokens"] = {k: v for k, v in asdict(sizes.tokens).items() if not callable(v)}
        return {
            "model": self.model,
            "media": [_media(outline) for outline in self.outcome.outlines],
            "sizes": {**plain, "n_prompt": sizes.n_prompt, "rows": sizes.rows},
            "n_ctx": room.n_ctx,
            "kv_bytes": room.kv_bytes,
            "held_bytes": room.held_bytes,
            "memory": {"parts": memory.parts, "needed": memory.needed, "available": memory.available},
            "fits": self.outcome.fits,
            "verdict": self.verdict,
            "suggestions": [asdict(s) for s in self.suggestions],
            "advice": self.advice,
            "seconds": self.seconds or None,
            "first_token_s": self.first_token_s,
            "calibration": _calibration(self.choice),
            **({"ttft": self.ttft.to_dict()} if self.ttft else {}),
            "warnings": self.warnings,
        }


def make_ttft_plan(model: Model, choice: TtftChoice) -> Forecast:
    """The plan of what was chosen for a wanted time, with the seconds of its estimate. As make_plan."""
    made, stages = make_plan(model, choice.request), choice.estimate.stages
    seconds = {**stages, "prefill": stages["prefill"] - stages["importance"]}
    return replace(made, seconds=seconds, ttft=choice)


def make_plan(model: Model, request: Request) -> Forecast:
    """Counts, memory and time of a request. Raises MediaError, ModelError, UsageError."""
    outcome = work_out(model, request, outline_all(model, request))
    choice = choose(model_shape(model), conditions(model), this_machine(), remedy(model))
    calibration, seconds = choice.calibration, dict[str, float]()
    if calibration:
        seconds = calibration.predict(features(model, outcome.sizes, outcome.room.kv_bytes, outcome.outlines))
    suggestions, notes = tuple(suggest(model, request, outcome)), tuple(_notes(model))
    return Forecast(model.name, outcome, suggestions, choice, seconds, notes=notes)


def _notes(model: Model) -> list[str]:
    if model.is_on_gpu:
        n = model.config.n_gpu_layers
        layers = "all layers are" if n is None or n < 0 else f"up to {n} layers are"
        elsewhere = (
            f"{layers} on a GPU: its memory is not looked at, and all that is there is counted as this machine's"
        )
        return [*model.warnings, elsewhere]
    return model.warnings


def remedy(model: Model) -> str:
    """A model by its name in the store, where that means it; else by its file."""
    name = str(model.paths.model)
    with contextlib.suppress(ModelError):
        if store.resolve(model.name).model == model.paths.model:
            name = model.name
    return f"`aim-local plan{'' if name == store.BUNDLED else f' {name}'} --calibrate` measures it"


def runs(counts: list[int]) -> list[tuple[int, int]]:
    """(value, how many in a row)."""
    return [(value, len(list(group))) for value, group in groupby(counts)]


def gigabytes(n: int) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _media(outline: Outline) -> dict[str, Any]:
    shape = outline.shape
    facts: dict[str, Any] = {"source": shape.source, "width": outline.width, "height": outline.height}
    if shape.kind == "video":
        facts |= {
            "frames": shape.n_frames,
            "timestamps": [None if t != t else round(t, 6) for t in shape.timestamps],
            "indices": list(shape.indices),
            "source_frames": outline.n_source_frames,
            "duration": None if shape.duration != shape.duration else shape.duration,
        }
    return facts


def _calibration(choice: Choice) -> dict[str, Any] | None:
    found = choice.calibration
    if found is None:
        return {"used": False, "reason": choice.reason}
    return {
        "used": True,
        "of_model": found.model,
        "scaled": choice.scaled,
        "date": found.date,
        "age_days": found.age_days,
        "median_error": found.median_error,
        "n_proof": len(found.proof),
        "reason": choice.reason,
    }
