"""Which variants of a test everyone runs, and which are left to `make test-all`; drawn examples likewise."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

_runs = {"all": False}


def set_all(config: pytest.Config) -> None:
    """Whether this run has the thorough tests, too. Before test files are imported."""
    _runs["all"] = "not thorough" not in config.getoption("markexpr")


def here(values: Iterable[Any], told: Collection[Any]) -> list[Any]:
    """For a fixture that makes what such tests are about: those that this run asks for."""
    return [value for value in values if _runs["all"] or value in told]


def examples(n: int) -> int:
    """Of hypothesis: n of them with the thorough tests, a quarter without."""
    return n if _runs["all"] else max(1, n // 4)


def few(values: Iterable[Any], told: int | Collection[Any]) -> list[Any]:
    """Parameters of a test. told: those that `make test` runs, or how many of the first; the others are thorough."""
    found = list(values)
    kept = found[:told] if isinstance(told, int) else told
    return [value if value in kept else pytest.param(value, marks=pytest.mark.thorough) for value in found]
