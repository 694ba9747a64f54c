"""Which merging a setting asks for: AIM's by similarity, or the plain average over squares to compare it with."""

from __future__ import annotations

import math

import numpy as np

from ..config import VisualTokenConfig
from ..errors import UsageError
from ..native.visual import Merged, Rows, merge_rows


def merged(rows: Rows, tokens: VisualTokenConfig) -> Merged:
    """Rows of one frame or picture, float32 [n, n_embd] in raster order, merged as `tokens` says.

    Raises UsageError where squares do not tile the grid.
    """
    if tokens.merge_by == "average" and tokens.merge_retain < 1:
        return average_squares(rows, tokens.merge_retain)
    return merge_rows(rows, tokens.merge_retain)


def average_squares(rows: Rows, retain: float) -> Merged:
    """Means over k x k squares of a square grid [n, n_embd], retain = 1 / k^2; a square's slot is its first corner."""
    side, k = math.isqrt(len(rows)), round(1 / math.sqrt(retain))
    if not math.isclose(retain, 1 / k**2, rel_tol=1e-6) or side**2 != len(rows) or side % k:
        raise UsageError(
            f"{len(rows)} visual tokens cannot be averaged to a share of {retain:g}; average takes 1/4, 1/9, 1/16 "
            f"... whose squares tile the grid; take another share, or merging by similarity"
        )
    n = side // k
    pooled = rows.reshape(n, k, n, k, -1).mean(axis=(1, 3), dtype=np.float32).reshape(n * n, -1)  # [n * n, n_embd]
    owners = np.arange(n * n, dtype=np.int32).reshape(n, n).repeat(k, axis=0).repeat(k, axis=1)
    slots = np.arange(len(rows), dtype=np.int32).reshape(side, side)[::k, ::k]
    return Merged(np.ascontiguousarray(pooled), slots.reshape(-1).copy(), owners.reshape(-1).copy())


def check_similarity(tokens: VisualTokenConfig, what: str) -> None:
    """Raises UsageError where averaging is asked for and only merging by similarity is there."""
    if tokens.merge_by != "similarity" and tokens.merge_retain < 1:
        raise UsageError(f"averaging visual tokens is not available for {what}; take merging by similarity")
