"""A scatter plot as inline SVG: points with intervals, the Pareto front, labels that do not cover one another.

Knows pixels and text. What is plotted comes from charts.py; colours are CSS variables --c0, --c1, ... of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..html import escape
from .axes import Measure, Scale, scale
from .labels import Box, Label, Named, place, width_of
from .pareto import front

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
N_COLOURS = 8


@dataclass(frozen=True)
class Frame:
    """Pixels of a plot and of its labels' letters. named: points have their names, where there is room."""

    width: int
    height: int
    font: float = 11.5
    named: bool = False

    @property
    def right(self) -> int:
        return self.width - RIGHT

    @property
    def floor(self) -> int:
        return self.height - BOTTOM

    @property
    def inside(self) -> Box:
        """Where labels may stand."""
        return Box(LEFT + 2, 0, self.width, self.floor - 2)


SMALL, LARGE, LARGE_ON_PHONE = Frame(360, 300), Frame(900, 460, 13, named=True), Frame(360, 380, named=True)


@dataclass(frozen=True)
class Point:
    """low, high: interval of y. ranked: may be on the front (a partial cell may not: it answered other questions).

    number: what stands for it where its name has no room.
    """

    x: float
    y: float
    label: str
    number: int
    tip: str
    colour: int
    shape: int
    low: float | None = None
    high: float | None = None
    ranked: bool = True


def scatter(name: str, title: str, x: Measure, y: Measure, points: Sequence[Point], frame: Frame = SMALL) -> str:
    """The plot. name: unique in the page, for its title and description."""
    ends = [value for p in points for value in (p.y, p.low, p.high) if value is not None]
    xs = scale([p.x for p in points], x, LEFT, frame.right)
    ys = scale(ends, y, frame.floor, TOP)
    places = spread([(xs.at(p.x), ys.at(p.y)) for p in points], frame)
    best = front([(p.x, p.y) if p.ranked else None for p in points], x.better, y.better)
    parts = [
        _grid(xs, ys, x, y, frame),
        *(_interval(p, at[0], ys) for p, at in zip(points, places, strict=True)),
        _front_line([places[i] for i in best]),
        *_labels(points, places, best, ys, frame),
        *(_marker(p, at, i in best) for i, (p, at) in enumerate(zip(points, places, strict=True))),
    ]
    about = _description(x, y, points, best)
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(about)}</desc>{"".join(parts)}</svg>'
    )


def _description(x: Measure, y: Measure, points: Sequence[Point], best: Sequence[int]) -> str:
    names = "; ".join(points[i].tip for i in best)
    return f"{len(points)} points, {y.label} over {x.label}. On the Pareto front: {names or 'none'}."


def spread(exact: Sequence[tuple[float, float]], frame: Frame = SMALL) -> list[tuple[float, float]]:
    """Pixels of the points; one that would cover another goes aside in x, by whole markers, never in y."""
    taken: list[tuple[float, float]] = []
    for x, y in exact:
        steps = sorted(range(-3, 4), key=lambda i: (abs(i), i < 0))
        tries = [(x + 10 * i, y) for i in steps if LEFT + 6 <= x + 10 * i <= frame.right - 6] or [(x, y)]
        free = (at for at in tries if all(abs(at[0] - o[0]) >= 9 or abs(at[1] - o[1]) >= 8 for o in taken))
        taken.append(next(free, tries[0]))
    return taken


def _grid(xs: Scale, ys: Scale, x: Measure, y: Measure, frame: Frame) -> str:
    floor, parts = frame.floor, []
    for value in xs.ticks:
        at = xs.at(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{floor}"/>')
        text = x.tick(value)
        at = min(at, frame.width - width_of(text, frame.font) / 2)  # a long one at the end is not cut off
        parts.append(f'<text x="{at:.1f}" y="{floor + 15}" text-anchor="middle">{escape(text)}</text>')
    for value in ys.ticks:
        at = ys.at(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{frame.right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(y.tick(value))}</text>')
    for each, down in ((xs, False), (ys, True)):
        parts.append(_break(each, down, frame))
    middle = (LEFT + frame.right) / 2
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{frame.right}"/>')
    parts.append(
        f'<text class="name" x="{middle}" y="{frame.height - 8}" text-anchor="middle">{escape(x.label)}</text>'
    )
    return "".join(parts)


def _break(each: Scale, vertical: bool, frame: Frame) -> str:
    """A dashed line between the logarithmic part and the band of zeros."""
    if not each.band:
        return ""
    at = each.start + math.copysign(each.band, each.end - each.start)
    line = f"M{LEFT} {at:.1f}H{frame.right}" if vertical else f"M{at:.1f} {TOP}V{frame.floor}"
    return f'<path class="break" d="{line}"/>'


def _interval(point: Point, x: float, ys: Scale) -> str:
    if point.low is None or point.high is None:
        return ""
    low, high = ys.at(point.low), ys.at(point.high)
    caps = f"M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"
    return f'<path class="bar" style="stroke:{colour(point.colour)}" d="M{x:.1f} {low:.1f}V{high:.1f}{caps}"/>'


def _front_line(places: Sequence[tuple[float, float]]) -> str:
    """Steps: between two points of the front, nothing better than the cheaper one was seen."""
    if len(places) < 2:
        return ""
    first, *rest = places
    steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)
    return f'<path class="front" d="M{first[0]:.1f} {first[1]:.1f}{steps}"/>'


def _marker(point: Point, at: tuple[float, float], on_front: bool) -> str:
    ring = '<circle class="ring" r="9"/>' if on_front else ""
    paint = colour(point.colour)
    fill = f"fill:{paint}" if point.ranked else "fill:var(--bg)"
    return (
        f'<g class="point" transform="translate({at[0]:.1f} {at[1]:.1f})"><title>{escape(point.tip)}</title>'
        f'<circle class="hit" r="13"/>{ring}<path d="{shape(point.shape)}" style="{fill};stroke:{paint}"/></g>'
    )


def _labels(
    points: Sequence[Point], places: Sequence[tuple[float, float]], best: Sequence[int], ys: Scale, frame: Frame
) -> list[str]:
    named = [
        Named(x, y, (p.label, str(p.number)) if frame.named else (str(p.number),))
        for p, (x, y) in zip(points, places, strict=True)
    ]
    markers = [Box(x - 9, y - 9, x + 9, y + 9) for x, y in places]
    found = place(named, markers, _lines(points, places, best, ys), frame.inside, frame.font)
    return [draw_label(label, frame) for label in found]


def draw_label(label: Label, frame: Frame) -> str:
    box = label.box
    line = ""
    if label.line:
        x0, y0, x1, y1 = label.line
        line = f'<path class="lead" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>'
    font = "" if frame.font == SMALL.font else f' style="font-size:{frame.font:g}px"'
    return f'{line}<text class="label" x="{box.x0 + 2:.1f}" y="{box.y1 - 3:.1f}"{font}>{escape(label.text)}</text>'


def _lines(points: Sequence[Point], places: Sequence[tuple[float, float]], best: Sequence[int], ys: Scale) -> list[Box]:
    """What a label should not cover: intervals, the line of the front."""
    bars = [
        Box(x - 3, ys.at(p.high), x + 3, ys.at(p.low))
        for p, (x, _) in zip(points, places, strict=True)
        if p.low is not None and p.high is not None
    ]
    steps = []
    for (x0, y0), (x1, y1) in pairwise([places[i] for i in best]):
        steps.append(Box(min(x0, x1) - 1, y0 - 1, max(x0, x1) + 1, y0 + 1))
        steps.append(Box(x1 - 1, min(y0, y1) - 1, x1 + 1, max(y0, y1) + 1))
    return [*bars, *steps]


def colour(i: int) -> str:
    return f"var(--c{i % N_COLOURS})"


def shape(i: int) -> str:
    """Path of marker i around (0, 0)."""
    return _SHAPES[i % len(_SHAPES)]


def _ring(n: int, inner: float = 1.0, radius: float = 5.6, turn: float = 0.0) -> str:
    """A regular polygon, or a star with every second corner at `inner` times the radius."""
    corners = []
    for i in range(n):
        r, a = radius * (inner if i % 2 else 1.0), math.radians(turn + 360 * i / n)
        corners.append(f"{r * math.sin(a):.1f} {-r * math.cos(a):.1f}")
    return "M" + "L".join(corners) + "Z"


_PLUS = "M-1.8-5.4H1.8V-1.8H5.4V1.8H1.8V5.4H-1.8V1.8H-5.4V-1.8H-1.8Z"
_CROSS = "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0Z"
_CIRCLE = "M-4.6 0a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0 -9.2 0Z"
_SHAPES = (
    _CIRCLE,
    _ring(4, radius=6.0, turn=45),
    _ring(3, radius=6.2),
    _ring(4, radius=6.2),
    _ring(3, radius=6.2, turn=180),
    _PLUS,
    _CROSS,
    _ring(10, inner=0.45, radius=6.6),
    _ring(6, radius=5.4),
    _ring(8, inner=0.4, radius=6.8),
)
N_SHAPES = len(_SHAPES)
