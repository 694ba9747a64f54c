"""The verdict's part of the page: a card that says what to use, and a list of all cells with their differences drawn.

Knows HTML. What is said comes from verdict.py, through the report. The list is also the key to the plots: its numbers,
colours and shapes are theirs.
"""

from __future__ import annotations

from ..html import escape
from .axes import linear_ticks
from .charts import models, settings
from .figures import points_text, signed
from .plots import colour, shape
from .recommendation import gain_change, gain_reference, gain_value
from .records import CellSummary, Gain, Report, Verdict
from .verdict import interval_text

_WIDE, _HIGH = 320, 26  # of a drawn difference, in its own pixels
_EDGE = 6
_KINDS = {"use": "use", "more questions": "more", "none": "none"}


def card(report: Report) -> str:
    """What to use and what it costs and gains, or what is missing."""
    found = report.recommendation
    if found is None:
        return ""
    cell = next((cell for cell in report.cells if cell.key == found.key), None)
    tiles = [_tile("Accuracy", *_accuracy(cell.verdict))] if cell is not None and cell.verdict is not None else []
    tiles += [
        _tile(gain.what.capitalize() if gain.what[0].islower() else gain.what, *_gain(gain)) for gain in found.gains
    ]
    numbers = f"<dl class='tiles'>{''.join(tiles)}</dl>" if tiles else ""
    text = "".join(f"<p>{escape(line)}</p>" for line in found.text)
    return (
        f"<section class='card {_KINDS[found.kind]}' aria-label='Verdict'>\n"
        f"<p class='kicker'>Verdict, within {escape(points_text(report.margin))} of accuracy</p>\n"
        f"<h2>{escape(found.headline)}</h2>\n{numbers}\n<div class='why'>{text}</div>\n</section>"
    )


def _tile(name: str, value: str, more: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong><small>{escape(more)}</small></dd></div>"


def _accuracy(verdict: Verdict) -> tuple[str, str]:
    return f"{signed(verdict.points or 0.0)} points", interval_text(verdict)


def _gain(gain: Gain) -> tuple[str, str]:
    return gain_value(gain), f"{gain_change(gain)}, instead of {gain_reference(gain)}"


# --- all cells --------------------------------------------------------------------------------------------------------


def verdict_list(report: Report) -> str:
    """Every cell: number, mark, name, verdict, and its difference to the reference beside the margin."""
    span = _span(report)
    rows = "".join(_row(n, cell, report, span) for n, cell in enumerate(report.cells, 1))
    legend = (
        f"Points of accuracy to the reference, with 95% intervals. Dashed: the margin, -{report.margin:g}. A cell "
        "keeps its accuracy where the whole interval lies to the right of it."
    )
    axis = f"<li class='axis' aria-hidden='true'><span></span><span></span>{_axis(span)}</li>" if span else ""
    note = f"<p class='muted'>{escape(legend)}</p>" if span else ""
    return f"<h2>All cells</h2>\n{note}\n<ol class='verdicts'>{rows}{axis}</ol>"


def _row(n: int, cell: CellSummary, report: Report, span: tuple[float, float] | None) -> str:
    fill, path = colour(models(report).index(cell.model)), shape(settings(report).index(cell.setting))
    mark = f"<svg class='mark' viewBox='-9 -9 18 18' aria-hidden='true'><path style='fill:{fill}' d='{path}'/></svg>"
    name = f"<span class='cell'><span class='n'>{n}</span>{mark}<span>{escape(cell.key)}</span></span>"
    return f"<li>{name}{_chip(cell)}{_difference(cell, span, report.margin)}</li>"


def _chip(cell: CellSummary) -> str:
    if cell.is_reference:
        return "<span class='chip'>reference</span>"
    if cell.verdict is None:
        return "<span class='chip'></span>"
    verdict = cell.verdict
    reason = f"<small>{escape(verdict.reason)}</small>" if verdict.reason else ""
    return f"<span class='chip {verdict.kind}'><strong>{escape(verdict.label)}</strong>{reason}</span>"


def _span(report: Report) -> tuple[float, float] | None:
    """Points from the left to the right edge: all intervals, the margin and 0 are in it."""
    found = [c.verdict for c in report.cells if c.verdict is not None]
    ends = [end for v in found for end in (v.low, v.high) if end is not None]
    if not ends:
        return None
    low, high = min(*ends, -report.margin), max(*ends, 0.0)
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _at(value: float, span: tuple[float, float]) -> float:
    return _EDGE + (_WIDE - 2 * _EDGE) * (value - span[0]) / (span[1] - span[0])


def _difference(cell: CellSummary, span: tuple[float, float] | None, margin: float) -> str:
    verdict = cell.verdict
    if span is None or verdict is None or verdict.low is None or verdict.high is None or verdict.points is None:
        return "<span class='diff'></span>"
    low, high, at = (_at(value, span) for value in (verdict.low, verdict.high, verdict.points))
    middle = _HIGH / 2
    text = f"{signed(verdict.points)} ({signed(verdict.low)} to {signed(verdict.high)})"
    return (
        f"<span class='diff {verdict.kind}'><svg viewBox='0 0 {_WIDE} {_HIGH}' aria-hidden='true'>"
        f"{_lines(span, margin)}<path class='bar' d='M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8"
        f"M{high:.1f} {middle - 4}v8'/><circle cx='{at:.1f}' cy='{middle}' r='4.5'/></svg>"
        f"<span class='value'>{text}</span></span>"
    )


def _lines(span: tuple[float, float], margin: float) -> str:
    zero, limit = _at(0.0, span), _at(-margin, span)
    return f"<path class='grid' d='M{zero:.1f} 0V{_HIGH}'/><path class='margin' d='M{limit:.1f} 0V{_HIGH}'/>"


def _axis(span: tuple[float, float]) -> str:
    ticks = [(_at(tick, span), f"{tick:+g}" if tick else "0") for tick in linear_ticks(*span, wanted=5)]
    texts = "".join(f"<text x='{x:.1f}' y='14' text-anchor='middle'>{text}</text>" for x, text in ticks)
    return (
        f"<span class='diff'><svg viewBox='0 0 {_WIDE} 18' aria-hidden='true'>{texts}</svg>"
        "<span class='value'>points</span></span>"
    )
