"""What media become: parts of a prompt, visual tokens and where they come from. Plain data and counts, no models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
# (llama_context, position, n_batch) -> the next position
Decode = Callable[[Any, int, int], int]


# --- a media item as a family lays it out, before it is encoded -------------------------------------------------------


@dataclass(frozen=True)
class VisualPart:
    """Visual tokens of an item that belong together. n: that enter the LLM; n_full: without token merging."""

    n: int
    n_full: int


# text, tokens that a library wrote, or visual tokens
Part = str | tuple[int, ...] | VisualPart


# --- a prompt --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextPiece:
    """Tokens of text."""

    tokens: tuple[int, ...]

    @property
    def n(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class MediaPiece:
    """A visual part of a media item. media: index in the conversation; part: index among its visual parts.

    n: visual tokens that enter the LLM. n_full: without token merging.
    """

    media: int
    part: int
    n: int
    n_full: int


Piece = TextPiece | MediaPiece


def count_text(pieces: Sequence[Piece]) -> int:
    return sum(p.n for p in pieces if isinstance(p, TextPiece))


def count_visual(pieces: Sequence[Piece]) -> int:
    return sum(p.n for p in pieces if isinstance(p, MediaPiece))


def count_visual_full(pieces: Sequence[Piece]) -> int:
    return sum(p.n_full for p in pieces if isinstance(p, MediaPiece))


# --- after encoding --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenGroup:
    """Where one visual token (after merging) comes from.

    media: index of the media item in the prompt; frame: frame or tile index, -1 for none (newline rows);
    slot: surviving raster slot in the frame's token grid, -1 for a newline row.
    """

    media: int
    frame: int
    slot: int


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """One picture the vision tower saw, and which visual token (after merging) covers each slot of its grid.

    media, frame: as in TokenGroup; name: "frame", "image", or "base view" and "tile grid" of one image.
    pixels: uint8 [h, w, 3], a thumbnail as it is displayed, of what the grid covers: its slots divide it evenly.
    owners: int32 [rows, cols], index into Trace.groups. Newline rows cover nothing and stand in no grid.
    index, timestamp: of a video frame in its source; -1 and NaN where there is none.
    """

    media: int
    frame: int
    name: str
    pixels: NDArray[np.uint8] = field(repr=False)
    owners: NDArray[np.int32] = field(repr=False)
    index: int = -1
    timestamp: float = math.nan


@dataclass(frozen=True, eq=False)
class Rotary:
    """How far rows are turned, for text towers whose rows have several rotary ids (M-RoPE).

    ids: int32 [n, 3], time, row and column of each, counted from the id that text would get in the first one's place.
    advance: how much further the text behind them goes on in the same prompt.
    """

    ids: NDArray[np.int32] = field(repr=False)
    advance: int


@dataclass(frozen=True, eq=False)
class VisualBlock:
    """Visual tokens of one part, ready for the LLM.

    rows: float32 [n, n_embd]. sizes: int32 [n], how many of the tower's rows each stands for after token merging, 1 for
    newlines; None: one each. groups: one per row, media left at 0 for the caller to set. grids: which row covers what,
    owners counted from this block's first row. ms: time by stage. rotary: None where a row has its position alone.
    decode: how the rows get into a context, where only the tower knows (M-RoPE of other families, masks that are not
    causal); such rows are neither merged nor pruned. both_ways: the rows attend to each other, those behind included.
    """

    rows: Rows = field(repr=False)
    groups: tuple[TokenGroup, ...] = field(repr=False)
    grids: tuple[TokenGrid, ...] = field(default=(), repr=False)
    ms: Mapping[str, float] = field(default_factory=dict)
    decode: Decode | None = field(default=None, repr=False)
    sizes: NDArray[np.int32] | None = field(default=None, repr=False)
    rotary: Rotary | None = field(default=None, repr=False)
    both_ways: bool = False


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """Which visual tokens of a prompt were kept.

    kept: one per layer il, int32 [n_il], sorted indices of the post-merge visual tokens that enter layer il.
    importance: il -> float32 [n visual tokens present in layer il], where scored.
    groups: per post-merge visual token, where it comes from.
    grids: the pictures and which token covers what; empty without pictures, and for towers that mtmd runs.
    """

    kept: list[NDArray[np.int32]] = field(default_factory=list)
    importance: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    groups: list[TokenGroup] = field(default_factory=list)
    grids: list[TokenGrid] = field(default_factory=list)
