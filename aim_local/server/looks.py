"""What the model looked at, as plain data and in plain words: pictures, which of their pieces were kept, and how long.

Knows traces and JSON. Leaves to the page how it is drawn, and to `lab/explain` the layers one by one.
"""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..drawing.layers import kept_tokens, label, n_media, places, tokens_of
from ..models.pieces import TokenGrid
from ..results import Trace

_JPEG_QUALITY = 82


def looks(trace: Trace) -> dict[str, object] | None:
    """What `return_looks` gives; None without pictures (a prompt of text, or a tower that does not tell).

    A piece is a slot of a picture's grid, or a newline row. n_full: all pieces; n_kept: visual tokens that enter the
    language model, token merging done; n_seen: those of them that enter layer `layer`, about half-way through pruning.
    summary: one line; detail: what the pictures show, in words.

    frames: media is the item's number in the conversation; time in seconds, None for pictures; image a JPEG data:
    address; per slot, row by row: kept (1 where its token enters `layer`), tokens (its token's number; equal numbers
    were merged) and heat (the place in the order in which tokens were let go, 1 kept longest; None without scores).
    n, n_kept: tokens that cover the picture, and those of them in `layer`.
    """
    if not trace.grids:
        return None
    il = shown_layer(trace)
    kept, heat = kept_tokens(trace, il), heat_of(trace)
    n_full, n, n_seen = n_pieces(trace), len(trace.groups), int(kept.sum())
    return {
        "summary": summary(n_full, n),
        "detail": detail(n_full, n, n_seen, il, first_dropping(trace)),
        "n_full": n_full,
        "n_kept": n,
        "n_seen": n_seen,
        "layer": il,
        "n_layer": len(trace.kept),
        "frames": [_frame(grid, kept, heat, label(grid, n_media(trace))) for grid in trace.grids],
    }


# --- numbers ----------------------------------------------------------------------------------------------------------


def n_pieces(trace: Trace) -> int:
    """Visual tokens as there would be without token merging: slots of all grids, and newline rows."""
    return sum(grid.owners.size for grid in trace.grids) + sum(group.slot < 0 for group in trace.groups)


def shown_layer(trace: Trace) -> int:
    """The first layer that sees at most half of the visual tokens, but some; without one, the last that sees any."""
    counts = [len(kept) for kept in trace.kept]
    for il, n in enumerate(counts):
        if 0 < n <= counts[0] / 2:
            return il
    return max((il for il, n in enumerate(counts) if n), default=0)


def first_dropping(trace: Trace) -> int | None:
    """The first layer that sees fewer visual tokens than entered, None where all go through."""
    return next((il for il, kept in enumerate(trace.kept) if len(kept) < len(trace.groups)), None)


def heat_of(trace: Trace) -> NDArray[np.float64] | None:
    """[n tokens] in [0, 1]: places in the order of (layers that saw the token, its last score). None without scores."""
    if not trace.importance:
        return None
    seen = np.zeros(len(trace.groups))
    for kept in trace.kept:
        seen[kept] += 1
    last = np.zeros(len(trace.groups))
    for il, scores in sorted(trace.importance.items()):
        last[trace.kept[il]] = places(scores)
    return places(seen + last / 2)  # a score never outweighs a layer


# --- words ------------------------------------------------------------------------------------------------------------


def summary(n_full: int, n: int) -> str:
    """One line: how many pieces the language model was given."""
    return f"The model kept {n} of {n_full} pieces" if n < n_full else f"The model read all {n_full} pieces"


def detail(n_full: int, n: int, n_seen: int, il: int, dropping: int | None) -> str:
    """What was done, in the order it was done."""
    parts = [f"Pieces that look alike were put together, {n_full} into {n}."] if n < n_full else []
    if dropping is not None and n_seen < n:
        parts.append(
            f"From layer {dropping} on the model let go of what mattered least; bright is what layer {il} still saw."
        )
    elif dropping is not None:
        parts.append(f"All of them were read up to layer {dropping - 1}, and none from there on.")
    return " ".join(parts) or "Nothing was put together and nothing was dropped."


# --- one picture ------------------------------------------------------------------------------------------------------


def _frame(grid: TokenGrid, kept: NDArray[np.bool_], heat: NDArray[np.float64] | None, name: str) -> dict[str, object]:
    owners, tokens = grid.owners.ravel(), tokens_of(grid)
    rows, cols = grid.owners.shape
    height, width = grid.pixels.shape[:2]
    return {
        "media": grid.media,
        "time": None if math.isnan(grid.timestamp) else round(grid.timestamp, 3),
        "label": name,
        "image": _data_url(grid.pixels),
        "width": width,
        "height": height,
        "rows": rows,
        "cols": cols,
        "tokens": owners.tolist(),
        "kept": kept[owners].astype(int).tolist(),
        "heat": None if heat is None else [round(float(level), 2) for level in heat[owners]],
        "n": len(tokens),
        "n_kept": int(kept[tokens].sum()),
    }


def _data_url(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
