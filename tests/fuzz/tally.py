"""What was tried so far and what it came to, per target and seed: kept on the disk, added up in a table."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.outcome import ANSWER, KINDS, REFUSED, Outcome


@dataclass
class Tally:
    """Of one target under one seed. next: the first number not tried. found: hits of each finding by its name."""

    target: str
    seed: int
    next: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0  # of the clock
    slowest_s: float = 0.0
    largest_mib: float = 0.0
    commits: list[str] = field(default_factory=list)

    @property
    def mutants(self) -> int:
        return sum(self.counts.values())

    def add(self, outcome: Outcome, name: str) -> bool:
        """name: of the finding, "" for a pass. Is it a finding not seen before?"""
        self.counts[outcome.kind] = self.counts.get(outcome.kind, 0) + 1
        self.slowest_s = max(self.slowest_s, outcome.seconds)
        self.largest_mib = max(self.largest_mib, outcome.mib)
        if not name:
            return False
        self.found[name] = self.found.get(name, 0) + 1
        return self.found[name] == 1


class State:
    """All tallies of a folder; a run that is stopped goes on where it was saved last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self.tallies = [Tally(**row) for row in rows]

    def tally(self, target: str, seed: int, commit: str) -> Tally:
        for found in self.tallies:
            if (found.target, found.seed) == (target, seed):
                break
        else:
            self.tallies.append(found := Tally(target, seed))
        if commit not in found.commits:
            found.commits.append(commit)
        return found

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps([dataclasses.asdict(t) for t in self.tallies], indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def table(tallies: Iterable[Tally]) -> str:
    """One line per target, all its seeds together, and one for the sum."""
    heads = ("target", "mutants", "answer", "one line", *KINDS, "places", "slowest", "largest", "minutes")
    by_target: dict[str, list[Tally]] = {}
    for tally in tallies:
        by_target.setdefault(tally.target, []).append(tally)
    rows = [cells(name, group) for name, group in sorted(by_target.items())]
    rows.append(cells("all", [t for group in by_target.values() for t in group]))
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = ["  ".join(c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in (heads, *rows)]  # fmt: skip
    return "\n".join(lines)


def cells(name: str, group: list[Tally]) -> list[str]:
    def n(kind: str) -> int:
        return sum(t.counts.get(kind, 0) for t in group)

    places = {(t.target, found) for t in group for found in t.found}
    return [
        name,
        str(sum(t.mutants for t in group)),
        str(n(ANSWER)),
        str(n(REFUSED)),
        *(str(n(kind)) for kind in KINDS),
        str(len(places)),
        f"{max((t.slowest_s for t in group), default=0):.1f} s",
        f"{max((t.largest_mib for t in group), default=0):.0f} MiB",
        f"{sum(t.seconds for t in group) / 60:.1f}",
    ]
