"""What docs/models.md says of a family, in its own words; the rest of its line follows from the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """checkpoints: which releases. text: architectures of language towers. video: how one stands in the prompt.

    converters: names of the converter's families that write its files. note: what its tokens cannot do, and why.
    """

    title: str
    checkpoints: str
    text: tuple[str, ...]
    video: str
    converters: tuple[str, ...]
    note: str = ""
