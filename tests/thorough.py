"""Which variants of a test everyone runs, and which are left to `make test-all`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few(values: Iterable[Any], told: int | Collection[Any]) -> list[Any]:
    """Parameters of a test. told: those that `make test` runs, or how many of the first; the others are thorough."""
    found = list(values)
    kept = found[:told] if isinstance(told, int) else told
    return [value if value in kept else pytest.param(value, marks=pytest.mark.thorough) for value in found]
