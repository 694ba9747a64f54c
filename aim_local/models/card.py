"""What docs/models.md says of a model family in its own words; the rest of its line follows from the code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """checkpoints: which releases. text: architectures of its language towers. video: how one stands in the prompt.

    converters: names of the converter's families that write its files. refused: why its visual tokens can be neither
    pruned nor weighed by size, "" where they can.
    """

    title: str
    checkpoints: str
    text: tuple[str, ...]
    video: str
    merging: str
    converters: tuple[str, ...]
    refused: str = ""
