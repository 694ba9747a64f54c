"""Axes of a plot: from values to a scale, its ticks and positions in pixels. Pure; draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .pareto import Direction

_LEAST = 1e-250  # what is told from 0, and the span of a linear axis: ticks are made by division
_MOST = 308  # power of ten
LOG_FROM = 20.0  # largest over least value from which a logarithmic scale shows more


@dataclass(frozen=True)
class Measure:
    """What an axis shows. tick: text of a value on it. limits: what values can be, so that no axis goes beyond.

    scale "auto": logarithmic from a ratio of LOG_FROM on. zero: values up to it are 0 on a logarithmic scale.
    """

    label: str
    better: Direction
    tick: Callable[[float], str]
    scale: Literal["linear", "auto"] = "linear"
    limits: tuple[float, float] = (0.0, math.inf)
    zero: float = 0.0


@dataclass(frozen=True)
class Scale:
    """Values from low to high on pixels from start to end. band: pixels at the start kept for values that are 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    zero: float
    band: float
    ticks: tuple[float, ...]  # values; 0 first where there is a band

    def at(self, value: float) -> float:
        """Pixel of a value."""
        sign = 1.0 if self.end > self.start else -1.0
        if self.log and value <= self.zero:
            return self.start + sign * self.band / 2
        low, high, v = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        first = self.start + sign * self.band
        return first + (self.end - first) * (v - low) / (high - low)


def scale(values: Sequence[float], measure: Measure, start: float, end: float) -> Scale:
    """A scale that holds all values, which must not be empty."""
    zero = max(measure.zero, _LEAST)
    positive = [value for value in values if value > zero]
    if measure.scale == "auto" and positive and max(positive) >= LOG_FROM * min(positive):
        low, high = _log_range(positive)
        band = 26.0 if len(positive) < len(values) else 0.0
        ticks = (*((0.0,) if band else ()), *log_ticks(low, high))
        return Scale(low, high, start, end, True, zero, band, ticks)
    low, high = _linear_range(values, measure.limits)
    return Scale(low, high, start, end, False, zero, 0.0, linear_ticks(low, high))


def _linear_range(values: Sequence[float], limits: tuple[float, float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < 0.4 * high:
        low = min(low, 0.0)  # 0 is near: show it
    # ticks are read to three digits: an axis never spans less than they can tell apart
    pad = max(0.08 * (high - low), 0.02 * abs(high))
    pad = pad if pad > _LEAST else 1.0
    low = low if low == 0 else max(low - pad, min(limits[0], low))
    # a value on its limit keeps room for its marker
    return low, high + (pad if high + pad <= limits[1] else max((limits[1] - high), 0.35 * pad))


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    pad = 10 ** (0.08 * (math.log10(max(values)) - math.log10(min(values))))
    return min(values) / pad, min(max(values) * pad, 10.0**_MOST)


def linear_ticks(low: float, high: float, wanted: int = 6) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten: at most `wanted` + 1 of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= wanted)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{i * step:.10g}") for i in range(first, last + 1))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten; with 2 and 5 between where there are few, every second or third where there are many."""
    powers = range(math.floor(math.log10(low)), min(math.ceil(math.log10(high)), _MOST) + 1)
    decades = math.log10(high) - math.log10(low)
    parts = (1, 2, 5) if decades < 1.6 else (1, 3) if decades < 3 else (1,)
    step = max(1, math.ceil(decades / 6))
    ticks = (m * 10.0**p for p in powers if p % step == 0 for m in parts)
    return tuple(float(f"{tick:.6g}") for tick in ticks if low <= tick <= high)
