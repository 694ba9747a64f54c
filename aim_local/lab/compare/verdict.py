"""What may be concluded from a comparison: which cells keep the reference's accuracy within a margin.

Knows reports and their figures; the statistics are noninferiority.py's business, what to use is recommendation.py's.
`judged` is the one place where verdicts are made: the page, Markdown, the terminal and JSON print what it says.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ...errors import UsageError
from .figures import about, percent, points, points_interval, points_text, reference_cell, signed
from .noninferiority import ALPHA, MIN_QUESTIONS, holm, needed_for, p_value
from .recommendation import recommendation
from .records import CellSummary, Paired, Report, Verdict

MIN_MARGIN = 0.001  # points; 384,000 equal answers show no less
MAX_MARGIN = 20.0  # points; beyond it "keeps its accuracy" would be no English
_NO_REFERENCE = "nothing can be compared with the reference"  # why not is said once, by the recommendation
_EXACT_P = 0.05  # McNemar's exact test finds a difference, however few the questions


def check_margin(margin: float) -> None:
    """Raises UsageError for a margin that is none."""
    if not MIN_MARGIN <= margin <= MAX_MARGIN:  # also true for NaN
        raise UsageError(f"margin is {margin:g}; give points of accuracy from {MIN_MARGIN:g} to {MAX_MARGIN:g}")


def judged(report: Report) -> Report:
    """The report with a verdict for every cell but the reference, and a recommendation."""
    reference = reference_cell(report)
    blocked = _reference_fault(report, reference)
    others = [cell for cell in report.cells if not cell.is_reference]
    reasons = {cell.key: _NO_REFERENCE if blocked else _cell_fault(cell, reference) for cell in others}
    tested = {cell.key: cell.paired for cell in report.cells if reasons.get(cell.key) == "" and cell.paired}
    ps = [p_value(found.only_reference, found.only_here, found.n, report.margin / 100) for found in tested.values()]
    both = dict(zip(tested, zip(ps, holm(ps), strict=True), strict=True))
    cells = []
    for cell in report.cells:
        verdict = None
        if paired := tested.get(cell.key):
            verdict = _verdict(cell, paired, report, *both[cell.key], len(ps))
        elif not cell.is_reference:
            verdict = _no_verdict(cell, reasons[cell.key])
        cells.append(replace(cell, verdict=verdict))
    report = replace(report, cells=tuple(cells))
    return replace(report, recommendation=recommendation(report, reference, blocked))


# --- what forbids a verdict -------------------------------------------------------------------------------------------


def _reference_fault(report: Report, reference: CellSummary | None) -> str:
    """Why nothing can be compared with the reference; "" where it can."""
    if reference is None or reference.status == "failed" or reference.n_done == 0:
        return f"the reference, {report.reference}, gave no answers"
    if reference.status != "done":
        return f"the reference, {reference.key}, has answered {reference.n_done} of {reference.n_items} questions"
    if reference.accuracy is None:
        return "no question has an expected answer to compare with"
    if reference.toy:
        return f"{reference.key} is a toy that knows drawn shapes only: its answers to this suite mean nothing"
    chance, right = report.chance or 0.0, reference.accuracy
    if right.low <= chance + report.margin / 100:
        return (
            f"the reference, {reference.key}, answers {percent(right.share)} of {right.n} questions right (95% from "
            f"{percent(right.low)} to {percent(right.high)}), which is not shown to be better than guessing "
            f"({percent(chance)}) by the margin: a cell that guesses would keep its accuracy too"
        )
    return ""


def _cell_fault(cell: CellSummary, reference: CellSummary | None) -> str:
    if cell.status == "failed":
        return "it failed"
    if cell.status != "done":
        return f"it has answered {cell.n_done} of {cell.n_items} questions, the reference all of them"
    if cell.toy:
        return "it is a toy that knows drawn shapes only: its answers to this suite mean nothing"
    if cell.paired is None or cell.accuracy is None or reference is None or reference.accuracy is None:
        return "no question has an expected answer to compare with"
    if not cell.paired.n == cell.accuracy.n == reference.accuracy.n:
        return "it did not answer the same questions as the reference"
    return ""


# --- one cell ---------------------------------------------------------------------------------------------------------


def _no_verdict(cell: CellSummary, reason: str) -> Verdict:
    return Verdict("none", "no verdict", f"{cell.key}: no verdict, because {reason}.", reason)


def _verdict(cell: CellSummary, paired: Paired, report: Report, p: float, p_holm: float, n_tested: int) -> Verdict:
    n, margin = paired.n, points_text(report.margin)
    low, high = points_interval(cell) or (math.nan, math.nan)
    needed = None
    if low > -report.margin and _bears(paired, report.margin / 100):
        kind, label = "within", f"keeps accuracy within {margin}"
    elif high < -report.margin and paired.p < _EXACT_P:
        kind, label = "loses", f"loses more than {margin}"
    else:
        needed = needed_for(paired, report.margin, n_tested)
        kind, label = "undecided", f"too few questions to say: about {about(needed)} needed"
    value = points(cell) or 0.0
    found = Verdict(kind, label, "", "", value, low, high, n, p, p_holm, needed)
    seen = f"{signed(value)} points ({interval_text(found)}) over {questions_text(n)}"
    if needed:
        to_tell = f"to tell whether it keeps accuracy within {margin}, about {about(needed)} are needed"
        return replace(found, text=f"{cell.key}: {seen}; {to_tell}.")
    return replace(found, text=f"{cell.key} {label}: {seen}.")


def _bears(paired: Paired, margin: float) -> bool:
    """Whether so many questions can show a loss below the margin: where nothing differs, or surely for the better.

    The score test alone would take four answers gained of thirty for enough.
    """
    return paired.n >= MIN_QUESTIONS and (p_value(0, 0, paired.n, margin) < ALPHA or paired.p < _EXACT_P)


# --- words ------------------------------------------------------------------------------------------------------------


def interval_text(verdict: Verdict) -> str:
    return f"95% from {signed(verdict.low or 0.0)} to {signed(verdict.high or 0.0)}"


def questions_text(n: int) -> str:
    return f"{n:,} question{'' if n == 1 else 's'}"
