"""A short run of each fuzz target with a fixed seed, and each file that was a finding once; `make fuzz` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import target as targets
from fuzz.driver import Bounds, Run, replay
from fuzz.findings import noted
from fuzz.tally import State

SEED = 13


def kept() -> list[Path]:
    files = [path for path in targets.FINDINGS.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted(path for path in files if not noted(path))


@pytest.mark.parametrize("name", targets.names())
def test_no_mutant_gets_past_one_clear_line(name: str, tmp_path: Path) -> None:
    told: list[str] = []
    state = State(tmp_path / "state.json")
    tally = state.tally(name, SEED, "now")
    Run(name, tally, state, tmp_path / "findings", told.append).go(Bounds(mutants=targets.load(name).short, jobs=1))
    assert not tally.found, "\n".join(told)
    assert tally.mutants == targets.load(name).short


@pytest.mark.parametrize("path", kept(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_stays_mended(path: Path) -> None:
    outcome = replay(path.parent.name, path)
    assert outcome.passed, f"{outcome.kind} at {outcome.place}\n{outcome.told}"
