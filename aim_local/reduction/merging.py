"""Which merging a setting asks for: AIM's by similarity or Ward's clustering; and what they are compared with.

That is the plain average over squares, and rows that are picked, at random or evenly, while the others go.

Knows rows of frames and pictures. Newline rows and where rows stand in the prompt are the families' business.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import UsageError
from ..native.visual import Merged, Rows, merge_rows, ward_rows
from .planner import merge_count

BASELINES = ("average", "random", "grid")
MOST_ROWS = 16384  # clustered together: AIM_WARD_MAX_ROWS, whose distances take 2 GiB


def merged(rows: Rows, tokens: VisualTokenConfig) -> Merged:
    """Rows of one frame or picture, float32 [n, n_embd] in raster order, merged as `tokens` says.

    Raises UsageError where squares do not tile the grid, and for rows that Ward's clustering cannot take.
    """
    if tokens.merge_retain == 1 or tokens.merge_by == "similarity":
        return merge_rows(rows, tokens.merge_retain)
    if tokens.merge_by == "average":
        return average_squares(rows, tokens.merge_retain)
    n_keep = merge_count(len(rows), tokens.merge_retain)
    if tokens.merge_by == "ward":
        return ward_rows(rows, n_keep)
    if tokens.merge_by == "grid":
        return picked(rows, np.arange(n_keep) * len(rows) // n_keep + len(rows) // n_keep // 2)
    assert tokens.merge_by == "random", "keys are not here: refused, or merged before the projector by the family"
    # the rows are part of the seed: frames of one clip lose other patches each
    rng = np.random.default_rng([tokens.seed, zlib.crc32(rows.tobytes())])
    return picked(rows, np.sort(rng.choice(len(rows), n_keep, replace=False)))


def merged_frames(frames: Sequence[Rows], tokens: VisualTokenConfig) -> Merged:
    """The frames of one window, each float32 [n, n_embd]; where windows are of one frame, what `merged` gives.

    In a window rows are clustered wherever they are, as many clusters as the frames would keep one by one, and a row
    stands where its medoid is: the member nearest to the mean. So a frame may keep any number of rows, or none.
    Slots and owners count through the window: frame * n + slot.
    """
    if tokens.merge_window == 1:
        return merged(frames[0], tokens)
    n_keep = len(frames) * merge_count(len(frames[0]), tokens.merge_retain)
    return ward_rows(np.concatenate(frames), n_keep, medoids=True)


def picked(rows: Rows, slots: NDArray[np.integer[Any]]) -> Merged:
    """The rows [n, n_embd] at these slots, ascending, as they are. Every other slot counts to the nearest of them.

    Nearest on the grid where n is a square number, else along the row numbers; the first of equally near ones.
    """
    side = math.isqrt(len(rows))
    wide = side if side**2 == len(rows) else 1
    at = np.stack(np.divmod(np.arange(len(rows)), wide), axis=1)  # [n, 2]
    far = ((at[:, None] - at[slots][None]) ** 2).sum(-1)  # [n, n_keep]
    owners = far.argmin(1).astype(np.int32)
    return Merged(np.ascontiguousarray(rows[slots]), slots.astype(np.int32), owners)


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


# --- what is available where ------------------------------------------------------------------------------------------


def refuse_baselines(tokens: VisualTokenConfig, what: str) -> None:
    """Raises UsageError where what is only compared with is asked for, and there is no grid of slots for it."""
    if tokens.merge_by in BASELINES and tokens.merge_retain < 1:
        raise UsageError(
            f"merging by {tokens.merge_by} is not available for {what}; take merging by similarity or by ward"
        )


def refuse_window(tokens: VisualTokenConfig, what: str) -> None:
    """Raises UsageError where frames are to be merged together and each has a fixed place in the prompt."""
    if tokens.merge_window > 1:
        raise UsageError(
            f"frames cannot be merged together (a window of {tokens.merge_window}) for {what}, where each frame stands "
            "apart in the prompt; take a window of 1"
        )


def check_clusters(tokens: VisualTokenConfig, together: Sequence[int]) -> None:
    """Raises UsageError for distances that would not fit.

    together: rows that are clustered with each other.
    """
    n_rows = max(together, default=0)
    if tokens.merge_by != "ward" or tokens.merge_retain == 1 or n_rows <= MOST_ROWS:
        return
    if tokens.merge_window > 1:
        what, instead = f"a window of {tokens.merge_window} frames", "take a smaller window"
    else:
        what, instead = "a part of the picture", "take a smaller picture, or merging by similarity"
    raise UsageError(f"{what} has {n_rows} visual tokens, {MOST_ROWS} can be clustered together; {instead}")
