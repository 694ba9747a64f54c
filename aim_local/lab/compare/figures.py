"""The figures of a comparison as columns: what each is called, how it reads, and its value for sorting.

Knows CellSummary. Which columns are shown, and how, is left to markdown.py and page.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ...results import STAGES
from ..measure import Spread
from .noninferiority import score_interval
from .records import CellSummary, Divergence, Rate, Report

# kinds of verdict, best first
_VERDICTS = {"within": "yes", "undecided": "too few questions", "loses": "no, it loses more", "none": "no verdict"}
KLD_ZERO = 1e-6  # nats: what float32 leaves of a divergence that is 0


@dataclass(frozen=True)
class Figure:
    """A number and its text. spread: interval or range, "" for none."""

    value: float
    text: str
    spread: str = ""


@dataclass(frozen=True)
class Column:
    """key: for scripts and tests. group: heading over several columns. of: None for a cell that has no such figure."""

    key: str
    head: str
    group: str
    of: Callable[[CellSummary], Figure | None]


def columns(report: Report) -> list[Column]:
    """Every column for which at least one cell has a figure, in the order of the report."""
    found = [*_answer_columns(report), *_divergence_columns(), *_time_columns(report.cells), *_cost_columns()]
    return [column for column in found if any(column.of(cell) for cell in report.cells)]


def reference_cell(report: Report) -> CellSummary | None:
    return next((cell for cell in report.cells if cell.is_reference), None)


def points(cell: CellSummary) -> float | None:
    """Accuracy minus the reference's over the questions both answered, in percentage points."""
    paired = cell.paired
    return 100 * (paired.only_here - paired.only_reference) / paired.n if paired else None


def points_interval(cell: CellSummary) -> tuple[float, float] | None:
    """The 95 % interval of points()."""
    paired = cell.paired
    if paired is None:
        return None
    low, high = score_interval(paired.only_reference, paired.only_here, paired.n)
    return 100 * low, 100 * high


def _answer_columns(report: Report) -> list[Column]:
    def difference(cell: CellSummary) -> Figure | None:
        value, span = points(cell), points_interval(cell)
        if value is None or span is None or cell.paired is None:
            return None
        return Figure(value, signed(value), f"{signed(span[0])} to {signed(span[1])}, p {p_value(cell.paired.p)}")

    def flips(cell: CellSummary) -> Figure | None:
        if (paired := cell.paired) is None or cell.is_reference:
            return None
        return Figure(paired.only_reference, f"{paired.only_reference} / {paired.only_here}")

    def verdict(cell: CellSummary) -> Figure | None:
        if (found := cell.verdict) is None:
            return None
        needed = f"about {about(found.needed)} needed" if found.needed else ""
        return Figure(list(_VERDICTS).index(found.kind), _VERDICTS[found.kind], needed)

    group = "Answers"
    return [
        Column("right", "right", group, lambda cell: rate(cell.accuracy)),
        Column("difference", "points to reference", group, lambda c: None if c.is_reference else difference(c)),
        Column("verdict", f"within {points_text(report.margin)}", group, verdict),
        Column("flips", "lost / gained", group, flips),
        Column("agree", "same answer", group, lambda cell: rate(cell.agreement)),
    ]


def _divergence_columns() -> list[Column]:
    def nats(name: str) -> Callable[[CellSummary], Figure | None]:
        def of(cell: CellSummary) -> Figure | None:
            found: Divergence | None = cell.divergence
            return None if found is None else Figure(getattr(found, name), kld(getattr(found, name)))

        return of

    group = "Next-token distributions"
    return [
        Column("kld", "KLD mean", group, nats("mean")),
        Column("kld_median", "median", group, nats("median")),
        Column("kld_p99", "99 %", group, nats("p99")),
        Column("top1", "same top-1", group, lambda cell: rate(cell.divergence.top1) if cell.divergence else None),
    ]


def _time_columns(cells: Iterable[CellSummary]) -> list[Column]:
    def stage(name: str) -> Callable[[CellSummary], Figure | None]:
        return lambda cell: spread(cell.stages.get(name))

    present = {name: None for cell in cells for name in cell.stages}
    names = [name for name in STAGES if name in present] + [name for name in present if name not in STAGES]
    group = "Time to first token, ms"
    place = Column("machine", "measured on", group, _machines)
    stages = [Column(f"stage_{name}", name.replace("_", " "), group, stage(name)) for name in names]
    speed = "Tokens a second"
    return [
        place,
        Column("ttft", "TTFT", group, lambda cell: spread(cell.ttft_ms)),
        *stages,
        Column("prefill_tps", "prefill", speed, lambda cell: spread(cell.prefill_tps)),
        Column("decode_tps", "decode", speed, lambda cell: spread(cell.decode_tps)),
    ]


def _machines(cell: CellSummary) -> Figure | None:
    """The machines of a cluster that the times are from, by their names; None where the comparison ran on one."""
    names = [machine.split(" (")[0] for machine in cell.machines]
    return Figure(0, ", ".join(names)) if names else None


def _cost_columns() -> list[Column]:
    def ran(make: Callable[[CellSummary], Figure]) -> Callable[[CellSummary], Figure | None]:
        """For figures that are means over items: none where no item ran."""
        return lambda cell: make(cell) if cell.n_done else None

    cost, files = "Cost, mean per question", "Memory and files"
    return [
        Column("flops", "FLOPs share", cost, ran(lambda c: Figure(c.flops_share, f"{c.flops_share:.3f}"))),
        Column(
            "visual",
            "visual tokens",
            cost,
            ran(lambda c: Figure(c.n_visual, f"{c.n_visual:.0f}", f"of {c.n_visual_full:.0f}")),
        ),
        Column("kv", "KV cache", cost, lambda cell: bytes_figure(cell.kv_bytes)),
        Column("rss", "peak RSS", files, lambda cell: bytes_figure(cell.peak_rss_bytes)),
        Column("model_size", "model file", files, lambda cell: bytes_figure(cell.model_bytes)),
        Column("mmproj_size", "mmproj file", files, lambda cell: bytes_figure(cell.mmproj_bytes)),
    ]


def rate(found: Rate | None) -> Figure | None:
    if found is None or not found.n:
        return None
    return Figure(found.share, percent(found.share), f"{100 * found.low:.1f} to {100 * found.high:.1f}")


def spread(found: Spread | None) -> Figure | None:
    if found is None:
        return None
    return Figure(found.median, number(found.median), f"{number(found.low)} to {number(found.high)}")


def bytes_figure(n: float) -> Figure | None:
    """None for 0: the figure is not known."""
    return Figure(n, size(n)) if n else None


def signed(points: float) -> str:
    """One digit, with its sign; what rounds to 0 has none."""
    return f"{points:+.1f}" if round(points, 1) else "0.0"


def points_text(points: float) -> str:
    return f"{points:g} point{'' if points == 1 else 's'}"


def about(n: int) -> str:
    """Rounded up to two digits: 6725 is "6,800"."""
    step = 10 ** max(0, len(str(n)) - 2)
    return f"{-(-n // step) * step:,}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def kld(nats: float) -> str:
    """Three digits; what is 0 but for rounding reads 0."""
    if nats <= KLD_ZERO:
        return "0"
    return f"{nats:.3f}" if nats >= 0.1 else f"{nats:.2g}" if nats >= 1e-4 else f"{nats:.0e}".replace("e-0", "e-")


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def number(value: float) -> str:
    """Three digits where there are three to give: 5.23, 52.3, 523, 5231."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def size(n: float) -> str:
    """Bytes for people, three digits: 358 kB, 1.97 MB."""
    units = (" B", " kB", " MB", " GB", " TB")
    step = 0
    while n >= 999.5 and step + 1 < len(units):
        n, step = n / 1000, step + 1
    return f"{number(n) if step else f'{n:.0f}'}{units[step]}"
