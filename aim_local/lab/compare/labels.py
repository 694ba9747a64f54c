"""Where the names of points stand in a plot: each beside its point, none over another or over a marker.

Knows boxes in pixels. What is named, and what else is drawn, is plots.py's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

HEIGHT = 14.0
_NEAR = 15.0  # pixels from a point up to which no line has to lead to its name, if no other point is nearer


@dataclass(frozen=True)
class Box:
    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def within(self, other: Box) -> bool:
        return other.x0 <= self.x0 and self.x1 <= other.x1 and other.y0 <= self.y0 and self.y1 <= other.y1

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box nearest to another."""
        return min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1)

    def distance(self, x: float, y: float) -> float:
        near = self.nearest(x, y)
        return math.hypot(near[0] - x, near[1] - y)


@dataclass(frozen=True)
class Named:
    """A point at (x, y) with the texts that may stand for it, the best first; the last one should be short."""

    x: float
    y: float
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    """A text in its box. line: from the point to the box where that is not beside it, else None."""

    text: str
    box: Box
    line: tuple[float, float, float, float] | None


def width_of(text: str, font: float) -> float:
    """Pixels; wide enough for what a sans-serif makes of it."""
    return 0.58 * font * len(text) + 4


def place(named: Sequence[Named], hard: Sequence[Box], soft: Sequence[Box], inside: Box, font: float) -> list[Label]:
    """One label per point, in their order.

    hard: what no label may cover; soft: what it should not, where there is another place. Points in a crowd come first,
    for they have the fewest places. Where nothing is free in the whole plot, the last text stands beside its point.
    """
    crowd = [sum(abs(a.x - b.x) < 60 and abs(a.y - b.y) < 40 for b in named) for a in named]
    taken: list[Box] = list(hard)
    found: dict[int, Label] = {}
    for i in sorted(range(len(named)), key=lambda i: -crowd[i]):
        text, box = _place_one(named[i], taken, soft, inside, font)
        taken.append(box)
        found[i] = Label(text, box, _line(named, i, box))
    return [found[i] for i in range(len(named))]


def _place_one(point: Named, taken: Sequence[Box], soft: Sequence[Box], inside: Box, font: float) -> tuple[str, Box]:
    for text, avoided in product(point.texts, ([*taken, *soft], taken)):
        wide = width_of(text, font)
        last = text == point.texts[-1]
        if avoided is taken and not last:
            continue  # a longer text has to be free of everything: a short one can be where it cannot
        for box in _places(point, wide, inside, far=last):
            if box.within(inside) and not any(box.meets(other) for other in avoided):
                return text, box
    x0 = min(max(point.x + 11, inside.x0), inside.x1 - wide)
    y0 = min(max(point.y - HEIGHT / 2, inside.y0), inside.y1 - HEIGHT)
    return text, Box(x0, y0, x0 + wide, y0 + HEIGHT)


def _line(named: Sequence[Named], i: int, box: Box) -> tuple[float, float, float, float] | None:
    x, y = named[i].x, named[i].y
    own = box.distance(x, y)
    others = (box.distance(other.x, other.y) for j, other in enumerate(named) if j != i)
    return None if own < _NEAR and own < min(others, default=math.inf) - 2 else (x, y, *box.nearest(x, y))


def _places(point: Named, wide: float, inside: Box, far: bool) -> Iterator[Box]:
    """Boxes to try, the nearest first; far: all over the plot."""
    x, y = point.x, point.y
    beside = [(x + side, y + dy) for dy in (-7, -15, 1) for side in (11, -11 - wide)]
    above = [(x + dx - wide / 2, y + dy) for dy in (-25, 11, -39, 25) for dx in (0, wide / 3, -wide / 3)]
    for x0, y0 in [*beside, *above]:
        yield Box(x0, y0, x0 + wide, y0 + HEIGHT)
    if far:
        columns = range(int(inside.x0), int(inside.x1 - wide) + 1, 8)
        rows = range(int(inside.y0), int(inside.y1 - HEIGHT) + 1, 8)
        grid = [(x0, y0) for x0 in columns for y0 in rows]
        for x0, y0 in sorted(grid, key=lambda at: (at[0] + wide / 2 - x) ** 2 + (at[1] + HEIGHT / 2 - y) ** 2):
            yield Box(x0, y0, x0 + wide, y0 + HEIGHT)
