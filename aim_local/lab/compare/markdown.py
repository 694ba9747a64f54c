"""A comparison as text: a Markdown table for a README, and rows for a terminal of 120 columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .figures import Figure, columns, percent, points, signed
from .records import CellSummary, Report
from .sentences import machine_text, summary, tested

TERMINAL_WIDTH = 120
TERMINAL_RIGHT = range(3, 12)  # columns that hold numbers

# heading in Markdown, heading in the terminal ("": no room there), key of the column in figures.py
_SHOWN = (
    ("right", "right", "right"),
    ("to reference (95%, p)", "+/- pts (p)", "difference"),
    ("within margin", "", "verdict"),
    ("same answer", "agree", "agree"),
    ("KLD mean", "KLD", "kld"),
    ("same top-1", "top-1", "top1"),
    ("FLOPs share", "FLOPs", "flops"),
    ("TTFT ms", "TTFT ms", "ttft"),
    ("KV cache", "KV", "kv"),
    ("peak RSS", "RSS", "rss"),
)


def markdown(report: Report) -> str:
    """Table, what did not run, summary, and how and where it was made. Columns without a figure are left out."""
    present = {column.key: column for column in columns(report)}
    shown = [(head, key) for head, _, key in _SHOWN if key in present]
    head = ["model", "setting", *(head for head, _ in shown)]
    rows = [
        [_md(cell.model), _md(cell.setting), *(_md_figure(key, present[key].of(cell)) for _, key in shown)]
        for cell in report.cells
    ]
    rule = ["---", "---", *["---:"] * len(shown)]
    lines = ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]
    notes = [f"- {_md(cell.key)}: {_md(_state(cell))}" for cell in report.cells if cell.status != "done"]
    return "\n".join([*lines, "", *([*notes, ""] if notes else []), *_below(report), ""])


def _below(report: Report) -> list[str]:
    m = len(tested(report))
    tests = f" p: McNemar's exact test, not corrected for {m} comparisons." if m else ""
    return [
        _md(" ".join(summary(report))) + " Right: 95% Wilson interval in brackets." + tests,
        "",
        f"{_code(report.command)}, suite {_md(report.suite)} ({report.n_items} questions), "
        f"{_md(machine_text(report.machine))}, {_md(report.created[:10])}",
    ]


def _md_figure(key: str, figure: Figure | None) -> str:
    if figure is None:
        return ""
    shown = figure.text
    if key == "right":
        return f"{shown} ({figure.spread.replace(' to ', '-')})"
    return f"{shown} ({figure.spread})" if key in ("difference", "verdict") and figure.spread else shown


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no end of a table cell, one line."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", flat)


def _code(text: str) -> str:
    """A code span around any text: the fence is longer than every run of backticks in it."""
    flat = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    space = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{space}{flat}{space}{fence}"


def _state(cell: CellSummary) -> str:
    done = "" if cell.status == "failed" and not cell.n_done else f", {cell.n_done} of {cell.n_items} questions"
    return f"{cell.status}{done}{': ' + cell.reason if cell.reason else ''}"


def terminal_rows(report: Report) -> list[list[str]]:
    """Heading and rows for cli/_table.print_table(rows, TERMINAL_RIGHT); at most TERMINAL_WIDTH columns wide.

    Long names lose their middle. Reasons have no room here: terminal_notes has them.
    """
    of = {column.key: column.of for column in columns(report)}
    shown = [(head, key) for _, head, key in _SHOWN if head]
    heads = [head for head, _ in shown]
    figures = [
        [_terminal(key, cell, of[key](cell) if key in of else None) for _, key in shown] for cell in report.cells
    ]
    status = [cell.status for cell in report.cells]
    rest = [
        max(map(len, column))
        for column in zip(["status", *heads], *([s, *f] for s, f in zip(status, figures, strict=True)), strict=True)
    ]
    room = TERMINAL_WIDTH - sum(rest) - 2 * (len(rest) + 1)
    models, settings = _fit([cell.model for cell in report.cells], [cell.setting for cell in report.cells], room)
    rows = [[m, s, state, *found] for m, s, state, found in zip(models, settings, status, figures, strict=True)]
    return [["model", "setting", "status", *heads], *rows]


def terminal_notes(report: Report) -> list[str]:
    """Lines under the table: reasons of what did not run, then the summary."""
    faults = [f"{cell.key}: {_state(cell)}" for cell in report.cells if cell.status != "done"]
    return [*faults, *summary(report)]


def _terminal(key: str, cell: CellSummary, figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if key == "difference" and cell.paired is not None:
        p = cell.paired.p
        return f"{signed(points(cell) or 0.0)} ({'<.001' if p < 0.001 else f'{p:.3f}'.lstrip('0')})"
    return percent(figure.value) if key in ("right", "agree", "top1") else figure.text


def _fit(models: Sequence[str], settings: Sequence[str], room: int) -> tuple[list[str], list[str]]:
    """Both columns of names in `room` characters together; the narrower keeps its width where it can."""
    wide_m, wide_s = max(map(len, ["model", *models])), max(map(len, ["setting", *settings]))
    half = room // 2
    if wide_m + wide_s > room:
        wide_m, wide_s = (
            (wide_m, room - wide_m) if wide_m <= half else (room - wide_s, wide_s) if wide_s <= half else (half, half)
        )
    return _shorten(models, wide_m), _shorten(settings, wide_s)


def _shorten(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` characters; different names stay different, if need be by a number at the end."""
    short: dict[str, str] = {}
    for name in names:
        if name not in short:
            new, i = _cut(name, width), 1
            while new in short.values():
                i += 1
                new = f"{_cut(name, width - len(str(i)) - 1)}~{i}"
            short[name] = new
    return [short[name] for name in names]


def _cut(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    keep = max(width - 2, 2)
    return f"{name[: keep - keep // 2]}..{name[-(keep // 2) :]}"
