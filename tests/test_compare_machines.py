"""Times of a comparison that ran on several machines of a cluster: named, and not weighed against each other."""

from __future__ import annotations

from dataclasses import replace

import compare_reports
import pytest

from aim_local.lab.compare.machines import about_machines, is_comparable
from aim_local.lab.compare.markdown import markdown, terminal_notes
from aim_local.lab.compare.records import Paired, Report
from aim_local.lab.compare.verdict import judged

BIG, SMALL = "big (a processor, 64 cores)", "small (another, 2 cores)"


def measured(*machines: tuple[str, ...]) -> Report:
    """Three cells of the first model, measured there."""
    report = compare_reports.report()
    cells = [replace(cell, machines=place) for cell, place in zip(report.cells[:3], machines, strict=True)]
    return replace(report, cells=tuple(cells))


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        (((), (), ()), ""),
        (((BIG,), (BIG,), (BIG,)), f"All times were measured on {BIG}."),
        (((BIG,), (BIG,), (SMALL,)), "measured on different machines, compare them within one only: "),
        (((BIG,), (BIG, SMALL), (BIG,)), f"paper on {BIG}, {SMALL}; "),
        (((), (), (BIG,)), "off on the machine where the comparison was started; "),
    ],
)
def test_what_is_said(machines: tuple[tuple[str, ...], ...], said: str) -> None:
    report = measured(*machines)
    line = " ".join(about_machines(report))
    assert said in line if said else line == ""
    assert line in " ".join(terminal_notes(report))
    assert ("measured on" in markdown(report)) == bool(said)


def test_times_of_different_machines_are_not_weighed() -> None:
    """What a recommendation gains names the time and the memory only where one machine measured both."""
    none_lost = Paired(0, 0, 1.0, 5000)
    for place, told in ((BIG, True), (SMALL, False)):
        report = measured((BIG,), (place,), (place,))
        right = compare_reports.rate(4990, 5000)
        cells = tuple(replace(c, accuracy=right, paired=None if c.is_reference else none_lost) for c in report.cells)
        found = judged(replace(report, cells=cells)).recommendation
        assert found is not None
        gains = {gain.what for gain in found.gains}
        assert {"KV cache"} <= gains
        assert ({"first token", "peak memory"} <= gains) == told == bool({"first token", "peak memory"} & gains)
        assert ("ms to the first token" in " ".join(found.text)) == told
    assert not is_comparable(
        replace(measured((), (), ()).cells[0], machines=(BIG, SMALL)), measured((), (), ()).cells[0]
    )
