"""What is given up for time, in one fixed order: a ladder of frames and settings, and the highest rung that fits.

Pure functions of numbers. Each rung has at least the frames and the kept share of the one below, so more time never
gives less of either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...config import VisualTokenConfig
from ...errors import UsageError
from ...settings import PRESETS, parse_setting

# least first: the default for videos loses little, so frames come before a higher share (docs/plan.md)
LEAST, BASE = "auto:keep=0.08:window=4", "auto"
HIGHER = ("auto:keep=0.5", "off")
# for models whose rows cannot be weighed: the same shares by merging alone
_MERGED = {
    "auto:keep=0.08:window=4": "merge-only:keep=0.08:merge=ward:window=4",
    "auto": "merge-only:keep=0.16:merge=ward",
    "auto:keep=0.5": "merge-only:keep=0.5:merge=ward",
}
_EVERY = 16  # numbers of frames that are all tried; above, steps of an eighth


def check_ttft(seconds: float, n_media: int) -> None:
    """Raises UsageError for what is no time, and where there is nothing to choose."""
    if not 0 < seconds < float("inf"):
        raise UsageError(f"ttft is {seconds:g} s; give a time above 0, such as 10s")
    if not n_media:
        raise UsageError("a time to the first token (ttft) chooses frames and visual tokens; give a video or a picture")


@dataclass(frozen=True)
class Rung:
    """n_frames: most frames of each video, 0 without a video. setting: its text form, "" for the one that was given."""

    n_frames: int
    setting: str
    tokens: VisualTokenConfig


def frame_steps(most: int) -> list[int]:
    """The numbers of frames that are tried, ascending, `most` the last; [0] where there is no video."""
    steps, n = [], 1
    while n < most:
        steps.append(n)
        n = n + 1 if n < _EVERY else n * 9 // 8
    return [*steps, most] if most else [0]


def ladder(most: int, prunes: bool, given: VisualTokenConfig | None = None) -> list[Rung]:
    """All rungs, the cheapest first. most: frames of a video at most, 0 for pictures alone.

    prunes: whether the model can prune. given: what was asked, so that only frames are left to choose.
    """
    steps = frame_steps(most)
    if given is not None:
        return [Rung(n, "", given) for n in steps]
    lowest = [_rung(steps[0], LEAST, prunes)]
    frames = [_rung(n, BASE, prunes) for n in steps]
    shares = [_rung(most, name, prunes) for name in HIGHER if prunes or name in _MERGED or name == "off"]
    return [*lowest, *frames, *shares]


def _rung(n: int, name: str, prunes: bool) -> Rung:
    setting = name if prunes else _MERGED.get(name, name)
    return Rung(n, setting, PRESETS[setting] if setting in PRESETS else parse_setting(setting))


@dataclass(frozen=True)
class Picked:
    """at: the number of the rung. met: whether it is within what was wanted; otherwise it is the fastest there is."""

    at: int
    met: bool


def pick(costs: Sequence[float], wanted: float) -> Picked:
    """The highest rung that costs at most `wanted`; of rungs that all cost more the cheapest, of equal ones the higher.

    Lower rungs may cost more than higher ones: a clip that was encoded with so many frames costs no encoding.
    """
    fits = [i for i, cost in enumerate(costs) if cost <= wanted]
    if fits:
        return Picked(fits[-1], True)
    return Picked(min(range(len(costs)), key=lambda i: (costs[i], -i)), False)


def cost_by_rung(rungs: Sequence[Rung], cost: Callable[[Rung], float | None]) -> tuple[list[Rung], list[float]]:
    """Rungs with what they cost, without those that cannot be done (None)."""
    found = [(rung, seconds) for rung in rungs if (seconds := cost(rung)) is not None]
    return [rung for rung, _ in found], [seconds for _, seconds in found]
