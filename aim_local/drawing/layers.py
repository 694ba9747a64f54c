"""What a trace says about its layers, in numbers: what is kept, what was scored, and which layers are worth drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..models.pieces import KeptTokens, TokenGrid

MAX_PICTURES = 480  # in one sheet; more are no longer looked at, and take gigabytes


@dataclass(frozen=True)
class Band:
    """One row of pictures: layer il, what entered it, or its importance."""

    il: int
    heat: bool = False


def check_pictures(trace: KeptTokens) -> None:
    """Raises UsageError where there is nothing to draw."""
    if trace.grids:
        return
    if not trace.groups:
        raise UsageError("the trace has no pictures: the prompt was text only; give a video or a picture")
    raise UsageError("the trace has no pictures: this vision tower does not tell which patches a visual token covers")


def check_layer(trace: KeptTokens, il: int) -> None:
    """Raises UsageError for a layer that the model does not have."""
    check_layers([il], len(trace.kept))


def check_layers(layers: Sequence[int], n_layer: int) -> None:
    """Raises UsageError for a layer that a model of n_layer layers does not have."""
    for il in layers:
        if isinstance(il, bool) or not isinstance(il, int | np.integer) or not 0 <= il < n_layer:
            raise UsageError(f"layer {il!r} does not exist; this model has layers 0 to {n_layer - 1}")


def stage_layers(trace: KeptTokens) -> list[int]:
    """Layers that see other visual tokens than the one before, layer 0 first."""
    kept = trace.kept
    return [il for il in range(len(kept)) if il == 0 or not np.array_equal(kept[il], kept[il - 1])]


def all_bands(trace: KeptTokens) -> list[Band]:
    """The first layer of every stage and every scored layer, in the order they run."""
    bands = [Band(il) for il in stage_layers(trace)] + [Band(il, heat=True) for il in trace.importance]
    return sorted(bands, key=lambda band: (band.il, band.heat))


def default_bands(trace: KeptTokens) -> list[Band]:
    """All bands, or evenly chosen ones, first and last among them, where that is more than MAX_PICTURES pictures."""
    bands = all_bands(trace)
    n = max(2, MAX_PICTURES // len(trace.grids))
    if len(bands) <= n:
        return bands
    return [bands[i * (len(bands) - 1) // (n - 1)] for i in range(n)]


def bands_of(trace: KeptTokens, il: int) -> list[Band]:
    """One layer, and its importance where it was scored."""
    check_layer(trace, il)
    return [Band(il), Band(il, heat=True)] if il in trace.importance else [Band(il)]


def kept_tokens(trace: KeptTokens, il: int) -> NDArray[np.bool_]:
    """[n tokens]: which visual tokens enter layer il."""
    found = np.zeros(len(trace.groups), np.bool_)
    found[trace.kept[il]] = True
    return found


def heat_levels(trace: KeptTokens, il: int) -> NDArray[np.float64]:
    """[n tokens] in [0, 1]: the place in layer il's ranking, 1 the most important; NaN for tokens it does not see.

    Places, not scores: PageRank's span dozens of powers of ten, and the order is what pruning goes by.
    """
    levels = np.full(len(trace.groups), np.nan)
    levels[trace.kept[il]] = places(trace.importance[il])
    return levels


def places(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """[n] -> [n]: share of the others that score lower, those with an equal score counted half."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    lower = np.cumsum(counts) - counts
    return np.asarray((lower + (counts - 1) / 2)[which] / max(1, len(scores) - 1), np.float64)


def tokens_of(grid: TokenGrid) -> NDArray[np.int32]:
    """Sorted tokens that cover anything of this picture."""
    return np.unique(grid.owners)


def label(grid: TokenGrid, n_media: int) -> str:
    """What a person calls this picture: "frame 3 at 0:01.2", with the media item's number where there are several."""
    item = f"{grid.media + 1}: " if n_media > 1 else ""
    if grid.index < 0:
        return item + grid.name
    return f"{item}{grid.name} {grid.index}{'' if math.isnan(grid.timestamp) else f' at {clock(grid.timestamp)}'}"


def clock(seconds: float) -> str:
    """1:02.5"""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def n_media(trace: KeptTokens) -> int:
    return len({grid.media for grid in trace.grids})
