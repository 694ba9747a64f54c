"""What a comparison says in words, made from its figures: the result, and how far it can be trusted.

Plain text. Knows Report; how it is set is left to markdown.py and page.py.
"""

from __future__ import annotations

from typing import Any

from .figures import about, percent, points_text, reference_cell, size
from .machines import about_machines
from .records import CellSummary, Report
from .summary import OTHER_WORDS

ALPHA = 0.05


def tested(report: Report) -> list[CellSummary]:
    """Cells with a paired test: so many comparisons were made."""
    return [cell for cell in report.cells if cell.paired is not None and not cell.is_reference]


def summary(report: Report) -> list[str]:
    """The result in sentences: what was compared with what, what to use, and which cells keep their accuracy."""
    return [
        basis(report),
        *advice(report),
        *[f"{head}: {', '.join(keys)}." for head, keys in groups(report)],
        *notes(report),
    ]


def basis(report: Report) -> str:
    """What was compared with what."""
    reference = reference_cell(report)
    if reference is None or reference.n_done == 0:
        return f"The reference, {report.reference}, gave no answers: nothing can be compared with it."
    right = ""
    if reference.accuracy is not None:
        right = f", which answers {percent(reference.accuracy.share)} of {reference.accuracy.n} questions right"
    return f"{_count(len(report.cells) - 1, 'cell')} compared with {reference.key}{right}."


def advice(report: Report) -> list[str]:
    """What to use, or what is missing to say so."""
    found = report.recommendation
    return [] if found is None else [f"{found.headline}.", *found.text]


def groups(report: Report) -> list[tuple[str, list[str]]]:
    """Headings, and the cells under each; a heading without cells is left out."""
    heads = {
        "within": f"Keeps accuracy within {points_text(report.margin)}",
        "loses": f"Loses more than {points_text(report.margin)}",
        "undecided": "Too few questions to say",
        "none": "No verdict",
    }
    found = []
    for kind, head in heads.items():
        keys = [_named(cell) for cell in report.cells if cell.verdict is not None and cell.verdict.kind == kind]
        found += [(head, keys)] if keys else []
    return found


def _named(cell: CellSummary) -> str:
    needed = cell.verdict.needed if cell.verdict else None
    return f"{cell.key} (about {about(needed)} needed)" if needed else cell.key


def notes(report: Report) -> list[str]:
    n = sum(OTHER_WORDS in cell.notes for cell in report.cells)
    words = [f"No KL divergence for {_count(n, 'cell')} with another vocabulary than the reference's."] if n else []
    return [*words, *about_machines(report)]


def reading(report: Report) -> list[str]:
    """How to read the figures, with the numbers of this report in it."""
    return [*_about_verdicts(report), *_about_answers(report), *_about_divergence(report), *_about_cost(report)]


def _about_verdicts(report: Report) -> list[str]:
    k = sum(cell.verdict is not None and cell.verdict.kind != "none" for cell in report.cells)
    if not k:
        return []
    margin = points_text(report.margin)
    lines = [
        f"Within {margin}: the loss of accuracy is shown to be less than the margin (--margin). Yes where the whole "
        f"95% interval of the difference to the reference lies above -{report.margin:g} (of cells that lose just that "
        "much, about 2.5% would pass), no where it lies below. In between there are too few questions to say; as many "
        "as are named would do in four cases of five if nothing were lost and the two went on differing as often as "
        "here.",
    ]
    if k > 1:
        lines.append(
            f"Verdicts are per cell. What is recommended has to hold for all {k} tested cells together (Holm's "
            "correction), for of many one may pass by chance. The numbers of questions needed count with that."
        )
    return lines


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
