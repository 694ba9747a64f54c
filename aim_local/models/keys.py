"""Token merging by the keys of the vision tower: whom it is for, and what everybody else is told.

How it is done is the family's own affair: llava.py.
"""

from __future__ import annotations

from ..config import VisualTokenConfig
from ..errors import UsageError


def by_keys(tokens: VisualTokenConfig) -> bool:
    return tokens.merge_by == "keys" and tokens.merge_retain < 1


def refuse_keys(tokens: VisualTokenConfig, what: str) -> None:
    """Raises UsageError where rows are to be merged by keys. what: that has none, such as "a video"."""
    if by_keys(tokens):
        raise UsageError(
            f"'authors' (merging by keys) is for pictures with LLaVA-1.5, whose vision tower gives out its keys, and "
            f"not for {what}; use tokens=paper"
        )
