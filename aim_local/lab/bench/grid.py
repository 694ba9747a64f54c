"""Which runs, in which order: arms in turns, round after round, so that every ratio has both its sides in one round.

Knows no models: an arm is a name and a function. The first arm is the one that others are compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...errors import AimError
from .session import Measured

WARM_UP = 0  # the number of rounds that count for nothing
Say = Callable[[str], None]


@dataclass(frozen=True)
class Arm:
    """One side of the comparison. run: frames -> what was measured."""

    name: str
    run: Callable[[int], Measured]


@dataclass(frozen=True)
class Record:
    """One run. round: from 1 on, WARM_UP for a warm-up."""

    round: int
    n_frames: int
    arm: str
    measured: Measured


@dataclass
class Grid:
    """Everything measured. failures: (frames, arm) -> why it could not be measured."""

    arms: list[str]
    frames: list[int]
    records: list[Record] = field(default_factory=list)
    failures: dict[tuple[int, str], str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return self.arms[0]

    def of(self, n_frames: int, arm: str) -> list[Measured]:
        """The runs that count, by round."""
        return [r.measured for r in self.records if (r.n_frames, r.arm) == (n_frames, arm) and r.round != WARM_UP]


def measure(frames: Sequence[int], arms: Sequence[Arm], n_rounds: int, say: Say, warm_up: int = 1) -> Grid:
    """warm_up rounds that do not count, then n_rounds that do, of all arms at each number of frames.

    An arm that cannot be run at a number of frames (no room, no memory) is left out there, with the reason.
    """
    grid = Grid([arm.name for arm in arms], list(frames))
    for n_frames in frames:
        start = time.perf_counter()
        for _ in range(warm_up):
            _round(grid, n_frames, arms, WARM_UP, say)
        if warm_up and any(r.n_frames == n_frames for r in grid.records):
            seconds = (time.perf_counter() - start) / warm_up * n_rounds
            follow = "1 round follows" if n_rounds == 1 else f"{n_rounds} rounds follow"
            say(f"{n_frames} frame{'s' if n_frames > 1 else ''}: {follow}, about {_duration(seconds)}")
        for number in range(1, n_rounds + 1):
            _round(grid, n_frames, arms, number, say)
    return grid


def _round(grid: Grid, n_frames: int, arms: Sequence[Arm], number: int, say: Say) -> None:
    for arm in arms:
        if (n_frames, arm.name) in grid.failures:
            continue
        try:
            measured = arm.run(n_frames)
        except AimError as e:
            grid.failures[n_frames, arm.name] = str(e)
            say(f"{n_frames} frames, {arm.name}: {e}")
            continue
        grid.records.append(Record(number, n_frames, arm.name, measured))
        label = f"round {number}" if number else "warm-up"
        say(f"{label}: {n_frames} frames, {arm.name}: prefill {measured.ms['prefill']:.0f} ms")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
