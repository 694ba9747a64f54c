"""On which machines of a cluster a comparison's times were measured, and between which cells they can be compared.

Knows Report. A comparison that ran on one machine has no such labels, and all its times can be compared.
"""

from __future__ import annotations

from .records import CellSummary, Report


def is_comparable(one: CellSummary, other: CellSummary) -> bool:
    """Whether the times of both were measured on one and the same machine."""
    return one.machines == other.machines and len(one.machines) <= 1


def about_machines(report: Report) -> list[str]:
    """What has to be said of the times: nothing for a comparison on one machine, and where all is of one."""
    measured = [cell for cell in report.cells if cell.n_done]
    if not any(cell.machines for cell in measured):
        return []
    found = {cell.key: ", ".join(cell.machines) or "the machine where the comparison was started" for cell in measured}
    if all(is_comparable(cell, measured[0]) for cell in measured):
        return [f"All times were measured on {found[measured[0].key]}."]
    where = "; ".join(f"{key} on {machine}" for key, machine in found.items())
    return [f"Times and memory were measured on different machines, compare them within one only: {where}."]
