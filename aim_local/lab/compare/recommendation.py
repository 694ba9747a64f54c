"""Which cell to use, from the verdicts of all: the cheapest that keeps its accuracy, or what is missing to say so.

Knows cells that have their verdicts (verdict.py), and their costs. A recommendation is a choice among many, so it has
to hold for all tested cells together (Holm's correction); a verdict is of one cell alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .figures import about, number, points_text, size
from .machines import is_comparable
from .noninferiority import ALPHA, needed_for
from .records import CellSummary, Gain, Paired, Recommendation, Report, Verdict


@dataclass(frozen=True)
class _Tested:
    """A cell with a verdict. needed: questions to tell, with all that were tested."""

    cell: CellSummary
    paired: Paired
    verdict: Verdict
    needed: int

    @property
    def is_sure(self) -> bool:
        """Also with so many tested."""
        p = self.verdict.p_holm
        return self.verdict.kind == "within" and p is not None and p <= ALPHA


def recommendation(report: Report, reference: CellSummary | None, blocked: str) -> Recommendation:
    """blocked: why nothing can be compared with the reference, "" where it can."""
    if blocked or reference is None:
        return Recommendation("none", "No verdict", (f"{blocked[0].upper()}{blocked[1:]}.",))
    tested = _tested(report)
    cheaper = sorted((t for t in tested if _is_cheaper(t.cell, reference)), key=lambda t: _cost(t.cell))
    if sure := [t for t in cheaper if t.is_sure]:
        waiting = [t for t in cheaper[: cheaper.index(sure[0])] if t.verdict.kind != "loses"]
        return _use(sure[0], reference, waiting, len(tested))
    if open_ := [t for t in cheaper if t.verdict.kind != "loses"]:
        return _more_questions(min(open_, key=lambda t: t.needed), len(tested))
    if cheaper:
        text = f"Every cheaper cell with a verdict loses more than {points_text(report.margin)}."
        nearest = max(cheaper, key=lambda t: t.verdict.points or 0.0)
        return Recommendation("none", f"Stay with {reference.key}", (text, nearest.verdict.text))
    return Recommendation("none", "Nothing to recommend", ("No cell with a verdict costs less than the reference.",))


def _tested(report: Report) -> list[_Tested]:
    found = [(c, c.paired, c.verdict) for c in report.cells if c.paired and c.verdict and c.verdict.kind != "none"]
    return [_Tested(c, paired, v, needed_for(paired, report.margin, len(found))) for c, paired, v in found]


def _cost(cell: CellSummary) -> tuple[float, float, float]:
    """Prefill FLOPs, bytes of the files, of the KV cache: what does not change from run to run."""
    return cell.flops_share, cell.model_bytes + cell.mmproj_bytes, cell.kv_bytes


def _is_cheaper(cell: CellSummary, reference: CellSummary) -> bool:
    """Costs less in something and more in nothing."""
    here, there = _cost(cell), _cost(reference)
    return here != there and all(a <= b for a, b in zip(here, there, strict=True))


def _use(best: _Tested, reference: CellSummary, waiting: Sequence[_Tested], n_tested: int) -> Recommendation:
    gains = _gains(best.cell, reference)
    text = [best.verdict.text]
    changed = [gain_text(gain) for gain in gains if gain_value(gain) != gain_reference(gain)]
    if changed:
        text.append(f"It needs {', '.join(changed)}.")
    if n_tested > 1:
        text.append(f"{n_tested} cells were tested: this holds for all of them together (Holm's correction).")
    if waiting:
        missing = ", ".join(f"{t.cell.key} (about {about(t.needed)} needed)" for t in waiting)
        text.append(f"Cheaper still, but with too few questions to say: {missing}.")
    return Recommendation("use", f"Use {best.cell.key}", tuple(text), best.cell.key, gains)


def _more_questions(nearest: _Tested, n_tested: int) -> Recommendation:
    if nearest.verdict.kind == "within":
        why = (
            f"That is said of it alone. {n_tested} cells were tested, and of so many one may pass by chance: for all "
            f"of them together (Holm's correction) about {about(nearest.needed)} questions are needed."
        )
    else:
        why = (
            "So many would do in four cases of five if it lost nothing and the two went on differing as often as here."
        )
    headline = f"Too few questions to say: about {about(nearest.needed)} needed"
    return Recommendation("more questions", headline, (nearest.verdict.text, why), needed=nearest.needed)


def _gains(cell: CellSummary, reference: CellSummary) -> tuple[Gain, ...]:
    def ttft(c: CellSummary) -> float:
        return c.ttft_ms.median if c.ttft_ms else 0.0

    pairs = (
        ("first token", ttft(cell), ttft(reference)),
        ("KV cache", cell.kv_bytes, reference.kv_bytes),
        ("peak memory", float(cell.peak_rss_bytes), float(reference.peak_rss_bytes)),
        ("files", _cost(cell)[1], _cost(reference)[1]),
    )
    measured = (
        () if is_comparable(cell, reference) else ("first token", "peak memory")
    )  # on other machines: not weighed
    return tuple(
        Gain(what, float(here), float(there))
        for what, here, there in pairs
        if here > 0 and there > 0 and what not in measured
    )


# --- words ------------------------------------------------------------------------------------------------------------


def gain_text(gain: Gain) -> str:
    return f"{gain_value(gain)} instead of {gain_reference(gain)} {_OF[gain.what]}"


_OF = {
    "first token": "to the first token",
    "KV cache": "of KV cache",
    "peak memory": "of memory",
    "files": "of files",
}


def gain_value(gain: Gain) -> str:
    return _amount(gain, gain.value)


def gain_reference(gain: Gain) -> str:
    return _amount(gain, gain.reference)


def _amount(gain: Gain, value: float) -> str:
    if gain.what != "first token":
        return size(value)
    in_seconds = max(gain.value, gain.reference) >= 10_000  # both sides in one unit
    return f"{number(value / 1000)} s" if in_seconds else f"{number(value)} ms"


def gain_change(gain: Gain) -> str:
    """The change in a few words: 2.3 times sooner, 81% less, the same."""
    ratio = gain.reference / gain.value
    if gain.what == "first token":
        return (
            "as soon"
            if 0.95 < ratio < 1.05
            else f"{ratio:.1f} times sooner"
            if ratio > 1
            else f"{1 / ratio:.1f} times later"
        )
    change = 1 - 1 / ratio
    return "the same" if abs(change) < 0.005 else f"{100 * abs(change):.0f}% {'less' if change > 0 else 'more'}"
