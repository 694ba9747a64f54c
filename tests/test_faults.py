"""A few calls of the C library fail during what reads and writes files; `make faults` lets all of them fail."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from fuzz.faults import found, library, spread, tried
from thorough import few

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs glibc and a C compiler"
)


@pytest.mark.parametrize("operation", few(["answers", "convert"], 1))
def test_a_call_that_fails_ends_in_success_or_one_line(operation: str, tmp_path: Path) -> None:
    rows = tried([operation], ("open", "write", "fsync", "rename"), 3, tmp_path)
    assert not [row for row in rows if found(row)]
    assert {row.function for row in rows if row.tried} >= {"open", "write", "fsync"}
    assert sum(row.outcomes["refused"] for row in rows) > 3, "faults that nobody sees are none"


def test_calls_are_taken_evenly() -> None:
    assert spread(3, 10) == [1, 2, 3]
    assert spread(100, 4) == [1, 34, 67, 100]
    assert spread(0, 4) == []
    assert spread(5, 1) == [1]


@pytest.mark.thorough
def test_the_library_compiles(tmp_path: Path) -> None:
    assert library(tmp_path).stat().st_size > 0
