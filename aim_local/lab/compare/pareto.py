"""Which points no other point beats in two measures at once. Pure; knows nothing of what is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Direction = Literal["less", "more"]  # which way is better
Pair = tuple[float, float]


def front(points: Sequence[Pair | None], x: Direction, y: Direction) -> list[int]:
    """Indices of the points on the Pareto front, from the best x to the worst; equal points are all on it.

    A point is off the front when another is at least as good in both measures and better in one. None: a point that
    lacks a measure, never on the front. Raises ValueError for NaN, which is neither better nor worse than anything.
    """
    costs = [None if point is None else _cost(point, x, y) for point in points]
    known = [cost for cost in costs if cost is not None]
    kept = [i for i, cost in enumerate(costs) if cost is not None and not any(_beats(other, cost) for other in known)]
    return sorted(kept, key=lambda i: costs[i] or (0.0, 0.0))


def _cost(point: Pair, x: Direction, y: Direction) -> Pair:
    """The point with both measures turned so that less is better."""
    if any(math.isnan(value) for value in point):
        raise ValueError(f"point {point} has no place on a front; leave it out as None")
    return (point[0] if x == "less" else -point[0], point[1] if y == "less" else -point[1])


def _beats(a: Pair, b: Pair) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b
