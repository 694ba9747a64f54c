"""A prompt as pieces: text tokens, and media that become rows of visual tokens. Plain data and counts, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import TokenGrid, TokenGroup


@dataclass(frozen=True)
class TextPiece:
    tokens: list[int]

    @property
    def n(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class MediaPiece:
    """One media item (or a part of it that a foreign tower keeps apart), before it is encoded.

    media: index of the item in the conversation. n: visual tokens that enter the LLM. n_full: without token merging.
    chunk: mtmd's own handle, for foreign towers.
    """

    media: int
    n: int
    n_full: int
    chunk: Any = None


@dataclass
class VisualBlock:
    """Visual tokens of one media piece, ready for the LLM.

    rows: float32 [n, n_embd]. groups: one per row. chunk: set when mtmd must decode it (M-RoPE, non-causal masks).
    grids: which row covers what, owners counted from this block's first row.
    """

    rows: NDArray[np.float32]
    groups: list[TokenGroup]
    chunk: Any = None
    keep: Any = field(default=None, repr=False)  # owner of the chunk's memory
    grids: list[TokenGrid] = field(default_factory=list)


Piece = TextPiece | MediaPiece


def count_text(pieces: Sequence[Piece]) -> int:
    return sum(p.n for p in pieces if isinstance(p, TextPiece))


def count_visual(pieces: Sequence[Piece]) -> int:
    return sum(p.n for p in pieces if isinstance(p, MediaPiece))


def count_visual_full(pieces: Sequence[Piece]) -> int:
    return sum(p.n_full for p in pieces if isinstance(p, MediaPiece))
