"""What to change so that a prompt fits: tried out one by one with the same planning, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ...config import VisualTokenConfig
from ...engine.model import Model
from ...errors import AimError, UsageError
from ...settings import parse_setting
from .request import Outcome, Request, outline_all, with_frames, work_out

_SETTINGS = ("auto", "auto:keep=0.08:window=4")
_KV_TYPES = ("q8_0", "q4_0")


@dataclass(frozen=True)
class Suggestion:
    """change: options to give. needed: bytes then."""

    change: str
    needed: int

    def __str__(self) -> str:
        return self.change


def suggest(model: Model, request: Request, outcome: Outcome) -> list[Suggestion]:
    """Single changes that make the prompt fit; empty where it fits already, or nothing helps."""
    if outcome.fits:
        return []
    return [*_frames(model, request, outcome), *_settings(model, request, outcome), *_types(model, request, outcome)]


def weights_alone(outcome: Outcome) -> int:
    """Bytes that no setting changes."""
    parts = outcome.memory.parts
    return sum(parts[name] for name in ("language weights", "vision weights", "program"))


def _tried(model: Model, request: Request, outcome: Outcome | None = None) -> Outcome | None:
    """The outcome where the request can be done and fits; the outlines of `outcome` are used again."""
    try:
        found = work_out(model, request, outcome.outlines if outcome else outline_all(model, request))
    except AimError:  # a setting that this model cannot do
        return None
    return found if found.fits else None


def _frames(model: Model, request: Request, outcome: Outcome) -> Iterator[Suggestion]:
    most = max((o.n_pictures for o in outcome.outlines if o.shape.kind == "video"), default=0)
    found = largest(most - 1, lambda n: _tried(model, with_frames(request, n, model.default_frames)))
    if found:
        yield Suggestion(f"n_frames={found[0]}", found[1].memory.needed)


def largest(most: int, try_out: Callable[[int], Outcome | None]) -> tuple[int, Outcome] | None:
    """The largest n in 1..most that fits, by bisection: fewer frames never take more."""
    low, high, best = 1, most, None
    while low <= high:
        middle = (low + high) // 2
        found = try_out(middle)
        if found:
            best, low = (middle, found), middle + 1
        else:
            high = middle - 1
    return best


def _settings(model: Model, request: Request, outcome: Outcome) -> Iterator[Suggestion]:
    for name in _SETTINGS:
        found = _smaller(model, request, outcome, parse_setting(name))
        if found:
            yield Suggestion(f"tokens={name}", found.memory.needed)
            return


def _smaller(model: Model, request: Request, outcome: Outcome, tokens: VisualTokenConfig) -> Outcome | None:
    found = _tried(model, replace(request, tokens=tokens), outcome)
    return found if found and found.sizes.flops["prefill"] < outcome.sizes.flops["prefill"] else None


def _types(model: Model, request: Request, outcome: Outcome) -> Iterator[Suggestion]:
    for name in _KV_TYPES:
        try:
            other = model.with_config(replace(model.config, type_k=name, type_v=name))
        except UsageError:  # quantised values need flash attention
            return
        found = _tried(other, request, outcome)
        if found and found.room.kv_bytes < outcome.room.kv_bytes:
            yield Suggestion(f"type_k={name} type_v={name}", found.memory.needed)
            return
