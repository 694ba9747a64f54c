"""What a comparison says in words, made from its figures: the result, and how far it can be trusted.

Plain text. Knows Report; how it is set is left to markdown.py and page.py.
"""

from __future__ import annotations

from typing import Any

from .figures import number, percent, points, reference_cell, size
from .records import CellSummary, Report
from .summary import OTHER_WORDS

ALPHA = 0.05


def tested(report: Report) -> list[CellSummary]:
    """Cells with a paired test: so many comparisons were made."""
    return [cell for cell in report.cells if cell.paired is not None and not cell.is_reference]


def summary(report: Report) -> list[str]:
    """The result in a few sentences; the first says what was compared with what."""
    reference = reference_cell(report)
    if reference is None or reference.n_done == 0:
        return [f"The reference, {report.reference}, gave no answers: nothing can be compared with it."]
    found = [_basis(report, reference), *_significance(report, reference), *_cheapest(report, reference)]
    n = sum(OTHER_WORDS in cell.notes for cell in report.cells)
    if n:
        found.append(f"No KL divergence for {_count(n, 'cell')} with another vocabulary than the reference's.")
    return found


def _basis(report: Report, reference: CellSummary) -> str:
    others = len(report.cells) - 1
    right = ""
    if reference.accuracy is not None:
        right = f", which answers {percent(reference.accuracy.share)} of {reference.accuracy.n} questions right"
    return f"{_count(others, 'cell')} compared with {reference.key}{right}."


def _significance(report: Report, reference: CellSummary) -> list[str]:
    cells = tested(report)
    if not cells:
        return ["No cell has a test against the reference."] if len(report.cells) > 1 else []
    apart = [cell for cell in cells if cell.paired is not None and cell.paired.p < ALPHA]
    worse = [cell for cell in apart if (points(cell, reference) or 0) < 0]
    better = len(apart) - len(worse)
    found = f"{_count(len(worse), 'is', 'are')} worse" + (
        f" and {_count(better, 'is', 'are')} better" if better else ""
    )
    return [f"Of {_count(len(cells), 'tested cell')}, {found} at p below {ALPHA}, not corrected for their number."]


def _cheapest(report: Report, reference: CellSummary) -> list[str]:
    """The cell of the least FLOPs for which the test shows no loss; file size decides between equals."""
    reduced = [cell for cell in tested(report) if cell.status == "done" and cell.flops_share < reference.flops_share]
    n_right = reference.accuracy.k if reference.accuracy else 0
    if reduced and 2 / 2**n_right >= ALPHA:  # McNemar's exact p where all of them are lost
        return [
            f"Too few questions to tell whether a cell is without a loss: {reference.key} has {n_right} right, and "
            f"losing all of them would not show at p below {ALPHA}."
        ]
    cells = [cell for cell in reduced if not _lost(cell, reference)]
    if not cells:
        return ["No cell of fewer FLOPs is without a loss at that level."] if reduced else []
    best = min(cells, key=lambda c: (c.flops_share, c.model_bytes + c.mmproj_bytes))
    parts = [f"{100 * best.flops_share:.0f}% of the FLOPs"]
    if best.ttft_ms is not None and reference.ttft_ms is not None:
        parts.append(
            f"{number(best.ttft_ms.median)} instead of {number(reference.ttft_ms.median)} ms to the first token"
        )
    if best.peak_rss_bytes and reference.peak_rss_bytes:
        parts.append(f"{size(best.peak_rss_bytes)} instead of {size(reference.peak_rss_bytes)} of memory")
    right = f" ({percent(best.accuracy.share)} right)" if best.accuracy is not None else ""
    return [f"Cheapest without a loss at p below {ALPHA}: {best.key}{right}, with {', '.join(parts)}."]


def _lost(cell: CellSummary, reference: CellSummary) -> bool:
    return cell.paired is not None and cell.paired.p < ALPHA and (points(cell, reference) or 0) < 0


def reading(report: Report) -> list[str]:
    """How to read the figures, with the numbers of this report in it."""
    return [*_about_answers(report), *_about_divergence(report), *_about_cost(report)]


def _about_answers(report: Report) -> list[str]:
    cells = tested(report)
    if not cells:
        return []
    m = len(cells)
    return [
        "Right: share of the expected answers given, with a 95% Wilson interval. Two cells answer the same questions, "
        "so overlapping intervals do not mean that they are equal; the paired test says more.",
        "p: McNemar's exact test on the questions that only one of the two answered right. A small p says that a "
        "difference so large would be rare if both were equally good. A large p does not show that they are equal: "
        "with few questions only large losses are found. Lost / gained: questions that only the "
        "reference, and only the cell, answered right.",
        f"p is not corrected for the number of comparisons, which is {m}: if no cell differed, "
        f"{'about ' if m > 1 else ''}{m * ALPHA:.2g} of them would still fall below {ALPHA} on average. "
        f"After Bonferroni the limit is {ALPHA / m:.2g}, and {_count(_below(cells, ALPHA / m), 'cell')} "
        f"{'is' if _below(cells, ALPHA / m) == 1 else 'are'} below it.",
    ]


def _below(cells: list[CellSummary], limit: float) -> int:
    return sum(cell.paired is not None and cell.paired.p < limit for cell in cells)


def _about_divergence(report: Report) -> list[str]:
    if not any(cell.divergence for cell in report.cells):
        return []
    return [
        "KLD: Kullback-Leibler divergence of the next-token distribution from the reference's, in nats, at each token "
        "of the reference's own answer; 0 is the same distribution. Same top-1: how often the likeliest token is the "
        "same. Both show a change long before answers flip, but not whether the change is for the worse."
    ]


def _about_cost(report: Report) -> list[str]:
    return [
        "FLOPs share: prefill of the language model, as a share of the same prompt without token merging and pruning; "
        "the vision tower is not in it. Quantisation does not change it.",
        "Times, speeds: median over questions, with the least and the largest. KV cache: bytes allocated. Peak RSS: "
        "largest resident memory of the cell's own process, file-mapped weights included.",
    ]


def machine_text(machine: dict[str, Any]) -> str:
    """Processor, cores, memory, system, versions: what is known of them, in one line."""
    memory = machine.get("memory_bytes")
    cores = machine.get("physical_cores")
    versions = [(name, machine.get(key)) for name, key in _VERSIONS]
    parts = [
        str(machine.get("processor") or "unknown processor"),
        f"{cores} cores" if cores else "",
        f"{size(memory)} memory" if memory else "",
        str(machine.get("system") or ""),
        *(f"{name} {version}" for name, version in versions if version),
    ]
    return ", ".join(part for part in parts if part)


_VERSIONS = (("Python", "python"), ("aim-local", "aim_local"), ("llama-cpp-python", "llama_cpp_python"))


def _count(n: int, one: str, many: str = "") -> str:
    """1 cell, 2 cells; "1 is", "2 are"."""
    return f"{n} {one if n == 1 else many or one + 's'}"
