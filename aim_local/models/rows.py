"""Visual rows out of nothing, in the place of a vision tower: the language model's part of a run, measured alone.

The costs of the language model depend on how many rows there are, not on their values. Token merging runs on them for
real. Counts are those of the tower it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import UsageError
from ..media import Image, Video
from ..native.llama import TextModel
from ..native.visual import merge_count
from ..reduction.merging import merged
from ..results import Stats, TokenGroup
from ..store.names import ModelPaths
from .base import VisionHead, plan_pieces
from .pieces import MediaPiece, Piece, VisualBlock

N_SLOTS = 196  # of LLaVA-OneVision: 27 x 27 patches pooled to 14 x 14
DEVIATION = 0.02


class RowsTower:
    """What a run asks of a VisionTower, without pictures. n_slots: rows of a frame before token merging."""

    is_foreign = False
    reduces_by_default = True
    default_frames = 32
    media_tokens = ("<image>", "<video>")

    def __init__(self, text: TextModel, n_slots: int = N_SLOTS) -> None:
        self.text, self.n_slots = text, n_slots
        self._rows = np.empty((0, n_slots, text.n_embd), np.float32)

    @classmethod
    def like(cls, paths: ModelPaths, text: TextModel) -> RowsTower:
        """In the place of the model's own tower; LLaVA-OneVision's where it has none. Raises UsageError."""
        if paths.mmproj is None:
            return cls(text)
        head = VisionHead(paths.mmproj, text)
        if head.is_foreign:
            raise UsageError(
                f"{paths.name}: its vision tower's tokens depend on the pictures, it cannot be skipped; "
                "leave --skip-vision and --against-stock out"
            )
        return cls(text, head.frame_slots)

    def prepare(self, n_frames: int) -> None:
        """Draws the rows of n_frames frames, so that it is in nobody's time."""
        if len(self._rows) < n_frames:
            shape = (n_frames, self.n_slots, self.text.n_embd)
            self._rows = np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(DEVIATION)

    def count(self, item: Video | Image, retain: float) -> int:
        """Rows after token merging, and one newline row."""
        assert isinstance(item, Video)
        return len(item.frames) * merge_count(self.n_slots, retain) + 1

    def n_tiles(self, item: Video | Image) -> int:
        return 1

    def plan(self, rendered: str, media: Sequence[Video | Image], tokens: VisualTokenConfig) -> tuple[list[Piece], Any]:
        return plan_pieces(self.text, self.count, rendered, media, tokens.merge_retain), None

    def encode(
        self,
        piece: MediaPiece,
        item: Video | Image,
        tokens: VisualTokenConfig,
        keep: Any,
        stats: Stats,
        step: Callable[[], None],
    ) -> VisualBlock:
        assert isinstance(item, Video)
        n_frames = len(item.frames)
        self.prepare(n_frames)
        with stats.timed("merge"):
            found = [merged(rows, tokens) for rows in self._rows[:n_frames]]
        newline: NDArray[np.float32] = self._rows[:1, 0]
        groups = [TokenGroup(piece.media, frame, int(slot)) for frame, m in enumerate(found) for slot in m.slots]
        rows = np.concatenate([*(m.rows for m in found), newline])
        return VisualBlock(rows, [*groups, TokenGroup(piece.media, -1, -1)])

    def close(self) -> None:
        """Nothing is held natively."""
