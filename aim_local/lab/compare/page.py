"""A comparison as one self-contained HTML page: the verdict, plots, every figure in a sortable table, how to read it.

Knows the order of the page. The verdict's part is page_verdict.py's; figures come from figures.py, words from
sentences.py, plots from charts.py, the skeleton from aim_local.lab.html. Everything a report holds is text here: names
with markup in them are shown, not obeyed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ...store.files import replaced
from ..html import embed_json, escape, page
from .charts import Chart, charts, models, settings
from .figures import Column, Figure, columns, percent
from .page_style import CSS, SCRIPT
from .page_verdict import card, verdict_list
from .plots import N_COLOURS, N_SHAPES
from .records import CellSummary, Rate, Report
from .sentences import basis, machine_text, notes, reading


def html(report: Report) -> str:
    """The whole page."""
    parts = [_header(report), card(report), _faults(report), verdict_list(report), _plots(report)]
    parts += [_table(report), _tags(report), _reading(report), _made(report)]
    return page(f"{report.suite}: comparison", "\n".join(part for part in parts if part), CSS, SCRIPT)


def write_html(report: Report, path: Path) -> None:
    """The page as a file, replaced whole: a reader sees the old page or the new one."""
    with replaced(path) as partial:
        partial.write_text(html(report), encoding="utf-8")


def _header(report: Report) -> str:
    lines = "".join(f"<p class='lead'>{escape(line)}</p>" for line in (basis(report), *notes(report)))
    return f"<header>\n<h1>{escape(report.suite)}: comparison</h1>\n{lines}\n</header>"


def _made(report: Report) -> str:
    questions = f"{report.n_items} questions, sha256 <code>{escape(report.suite_sha256[:16])}</code>"
    facts = [
        ("Suite", f"{escape(report.suite)}, {questions}"),
        ("Reference", escape(report.reference)),
        ("Machine", escape(machine_text(report.machine))),
        ("Made", escape(report.created.replace("T", " ").replace("+00:00", " UTC").replace("Z", " UTC"))),
    ]
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f"<h2>How this was made</h2>\n<dl class='facts'>{rows}</dl>\n<pre>{escape(report.command)}</pre>"


def _faults(report: Report) -> str:
    """What did not run, where nobody can miss it: at the top, with the reasons."""
    items = [
        f"<li><strong>{escape(cell.key)}</strong>: {_status(cell)}</li>"
        for cell in report.cells
        if cell.status != "done"
    ]
    return f"<h2>Not finished</h2>\n<ul class='faults'>{''.join(items)}</ul>" if items else ""


def _status(cell: CellSummary) -> str:
    reason = f": {escape(cell.reason)}" if cell.reason else ""
    kind = "bad" if cell.status == "failed" else "muted"
    return f"<span class='{kind}'>{escape(cell.status)}, {cell.n_done} of {cell.n_items} questions</span>{reason}"


def _plots(report: Report) -> str:
    drawn = charts(report)
    if not drawn:
        return "<h2>Plots</h2>\n<p>No cell has the figures for a plot.</p>"
    hint = "<p class='readout' aria-live='polite'>Point at a cell, or touch it, for its figures.</p>"
    figures = [f"<figure><figcaption>{escape(c.title)}</figcaption>{_drawing(c)}{hint}</figure>" for c in drawn]
    rest = f"<div class='plots'>{''.join(figures[1:])}</div>\n" if figures[1:] else ""
    return f"<h2>Plots</h2>\n{figures[0]}\n{rest}{_plot_notes(report)}"


def _drawing(chart: Chart) -> str:
    if not chart.on_phone:
        return chart.svg
    return f"<div class='on-desktop'>{chart.svg}</div><div class='on-phone'>{chart.on_phone}</div>"


def _plot_notes(report: Report) -> str:
    notes = [
        "Ringed and joined by the dashed line: the Pareto front. No other finished cell is at least as good in both "
        "measures of that plot and better in one; each finished cell off the line is beaten by one on it. It is drawn "
        "from the measured values: within the intervals, chance decides who is on it.",
        "Bars: 95% Wilson intervals. Numbers are those of the list above. Points that would cover each other stand "
        "side by side; the table has the figures.",
    ]
    if any(cell.status != "done" and cell.n_done for cell in report.cells):
        notes.append("Hollow: a cell that is not finished. It answered fewer questions and is not ranked.")
    if len(models(report)) > N_COLOURS or len(settings(report)) > N_SHAPES:
        notes.append(f"Colours repeat after {N_COLOURS} models and shapes after {N_SHAPES} settings.")
    return "".join(f"<p class='muted'>{note}</p>" for note in notes)


def _table(report: Report) -> str:
    found = columns(report)
    rows = "\n".join(_row(i, cell, found) for i, cell in enumerate(report.cells))
    return (
        "<h2>All figures</h2>\n<div class='scroll' tabindex='0' role='region' aria-label='All figures'>\n"
        f"<table class='wide' id='cells'>\n<thead>\n{_heads(found)}\n</thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n"
        f"{embed_json('sort-values', _sort_values(report, found))}{_cell_notes(report)}"
    )


def _heads(found: list[Column]) -> str:
    groups = list(dict.fromkeys(column.group for column in found))
    spans = [(group, sum(column.group == group for column in found)) for group in groups]
    top = "".join(f"<th scope='colgroup' class='group' colspan='{n}'>{escape(group)}</th>" for group, n in spans)
    names = "".join(
        f"<th scope='col'{_group_class(found, i)}>{_key(column.key, column.head)}</th>"
        for i, column in enumerate(found)
    )
    first = f"<th scope='col' class='first text'>{_key('model', 'model')} {_key('setting', 'setting')}</th>"
    return (
        f"<tr><td class='first'></td><td></td>{top}</tr>\n"
        f"<tr>{first}<th scope='col' class='text'>{_key('status', 'status')}</th>{names}</tr>"
    )


def _key(key: str, head: str) -> str:
    return f"<span data-key='{escape(key)}'>{escape(head)}</span>"


def _group_class(found: list[Column], i: int) -> str:
    return " class='group'" if i == 0 or found[i].group != found[i - 1].group else ""


def _named(found: list[Column], figures: Iterable[str]) -> str:
    """Cells of a row; each knows its heading, for print, where the headings are not above it."""
    often = Counter(column.head for column in found)
    heads = [c.head if often[c.head] == 1 else f"{c.head}, {c.group.lower()}" for c in found]
    return "".join(
        f"<td{_group_class(found, j)} data-head='{escape(heads[j])}'>{figure}</td>" for j, figure in enumerate(figures)
    )


def _row(i: int, cell: CellSummary, found: list[Column]) -> str:
    figures = _named(found, (_figure(column.of(cell)) for column in found))
    mark = " (reference)" if cell.is_reference else ""
    state = escape(cell.status) + (f"<small>{cell.n_done} of {cell.n_items}</small>" if cell.status != "done" else "")
    reason = f"<small>{escape(cell.reason)}</small>" if cell.reason else ""
    return (
        f"<tr data-i='{i}' class='{escape(cell.status)}'><th scope='row' data-n='{i + 1}'>{escape(cell.model)}"
        f"<small>{escape(cell.setting)}{mark}</small></th><td class='status'>{state}{reason}</td>{figures}</tr>"
    )


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "<span class='muted' aria-label='none'>\u2013</span>"
    spread = f"<small>{escape(figure.spread)}</small>" if figure.spread else ""
    return escape(figure.text) + spread


def _sort_values(report: Report, found: list[Column]) -> list[dict[str, float]]:
    """Per row, what its columns are sorted by; names by their place in the report."""
    names, kinds, states = models(report), settings(report), ["done", "partial", "failed"]
    rows = []
    for cell in report.cells:
        place: dict[str, float] = {
            "model": names.index(cell.model),
            "setting": kinds.index(cell.setting),
            "status": states.index(cell.status),
        }
        figures = ((column.key, column.of(cell)) for column in found)
        rows.append({**place, **{key: figure.value for key, figure in figures if figure is not None}})
    return rows


def _cell_notes(report: Report) -> str:
    """Notes of the cells; one that several cells share is said once."""
    said: dict[str, list[str]] = {}
    for cell in report.cells:
        for note in cell.notes:
            said.setdefault(note, []).append(cell.key)
    items = "".join(
        f"<li><strong>{escape(', '.join(keys))}</strong>: {escape(note)}</li>" for note, keys in said.items()
    )
    return f"<ul>{items}</ul>" if items else ""


def _tags(report: Report) -> str:
    tags = list(dict.fromkeys(tag for cell in report.cells for tag in cell.by_tag))
    if not tags:
        return ""
    heads = "".join(f"<th scope='col'>{escape(tag)}</th>" for tag in tags)
    rows = "\n".join(
        f"<tr><th scope='row'>{escape(cell.model)}<small>{escape(cell.setting)}</small></th>"
        f"{''.join(f'<td class=tag>{_tag(cell.by_tag.get(tag))}</td>' for tag in tags)}</tr>"
        for cell in report.cells
        if cell.by_tag
    )
    return (
        "<details>\n<summary><strong>Right by tag</strong>, with 95% intervals</summary>\n"
        "<div class='scroll' tabindex='0' role='region' aria-label='Right by tag'>\n<table class='tags'>\n"
        f"<thead><tr><th scope='col' class='first text'>model, setting</th>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n</details>"
    )


def _tag(rate: Rate | None) -> str:
    if rate is None or not rate.n:
        return _figure(None)
    interval = f"{100 * rate.low:.0f} to {100 * rate.high:.0f}, {rate.k} of {rate.n}"
    return f"{percent(rate.share)}<small>{interval}</small>"


def _reading(report: Report) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in reading(report))
    return f"<h2>How to read this</h2>\n<ul>{items}</ul>"
