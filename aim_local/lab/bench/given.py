"""The tokens that both sides of a pair decode. Loads no library: each side has its own."""

from __future__ import annotations

from collections.abc import Iterable


def given_tokens(numbers: int | Iterable[int]) -> list[int]:
    """Token ids that every vocabulary has: the first so many, or those with the given numbers."""
    return [7 * i % 100 for i in (range(numbers) if isinstance(numbers, int) else numbers)]
