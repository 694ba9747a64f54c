"""A short run of each fuzz target with a fixed seed, and each file that was a finding once; `make fuzz` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import target as targets
from fuzz.driver import Bounds, Run
from fuzz.findings import noted
from fuzz.process import Child
from fuzz.tally import State
from thorough import few

SEED = 13


@pytest.mark.parametrize("part", few([20, 1], 1))
@pytest.mark.parametrize("name", targets.names())
def test_no_mutant_gets_past_one_clear_line(name: str, part: int, tmp_path: Path) -> None:
    """A part of the target's short run, or all of it."""
    told: list[str] = []
    n = max(3, targets.load(name).short // part)
    state = State(tmp_path / "state.json")
    tally = state.tally(name, SEED, "now")
    Run(name, tally, state, tmp_path / "findings", told.append).go(Bounds(mutants=n, jobs=1))
    assert not tally.found, "\n".join(told)
    assert tally.mutants == n


@pytest.mark.parametrize("name", sorted({path.parent.name for path in targets.FINDINGS.glob("*/*")}))
def test_what_was_found_once_stays_mended(name: str, tmp_path: Path) -> None:
    files = [path for path in sorted((targets.FINDINGS / name).iterdir()) if path.name[0] != "." and not noted(path)]
    with Child(name, tmp_path, SEED, targets.load(name).memory_mib) as child:
        outcomes = {path.name: child.file(path) for path in files}
    assert not {name: outcome for name, outcome in outcomes.items() if not outcome.passed}
