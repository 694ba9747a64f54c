"""Visual rows out of nothing, in the place of a vision tower: the language model's part of a run, measured alone.

The costs of the language model depend on how many rows there are, not on their values. Token merging runs on them for
real. Counts are those of the tower it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..config import VisualTokenConfig
from ..errors import UsageError
from ..media import Image, MediaShape, Video
from ..reduction.merging import check_clusters, merged_frames
from ..reduction.planner import merge_count
from .base import Fit, Frame, TileRows, Tower, TowerFacts
from .pieces import Part, Rows, TokenGroup, VisualBlock, VisualPart
from .text import TextModel
from .tiles import NEWLINE, Clock, frame_groups, windows

N_SLOTS = 196  # of a 384 px frame: 27 x 27 patches pooled to 14 x 14
DEVIATION = 0.02


class RowsTower:
    """n_slots: rows of a frame before token merging. One newline row follows the last frame.

    media_tokens, chat_template: as of a Tower.
    """

    projector = "random rows"
    reduces_by_default = True
    sees_any_size = False
    default_frames = 32
    facts: TowerFacts | None = None
    patch_px = 0
    gives_rotary_ids = False  # costs do not depend on them
    precision = "none"
    frame_rows: Callable[[Frame], Rows] | None = None

    def __init__(
        self,
        text: TextModel,
        n_slots: int = N_SLOTS,
        *,
        media_tokens: tuple[str, str] | None = ("<image>", "<video>"),
        chat_template: str | None = None,
    ) -> None:
        self.text, self.n_slots = text, n_slots
        self.media_tokens, self.chat_template = media_tokens, chat_template
        self._rows = np.empty((0, n_slots, text.n_embd), np.float32)

    @classmethod
    def like(cls, tower: Tower | None, text: TextModel) -> RowsTower:
        """In the place of a model's own tower. Raises UsageError where its counts are not known from sizes."""
        if tower is None:
            return cls(text)
        if tower.facts is None:
            raise UsageError(
                f"the tokens of projector {tower.projector!r} depend on the pictures, the tower cannot be skipped; "
                "leave --skip-vision and --against-stock out"
            )
        n = tower.facts.n_slots
        return cls(text, n, media_tokens=tower.media_tokens, chat_template=tower.chat_template)

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return None

    def prepare(self, n_frames: int) -> None:
        """Draws the rows of n_frames frames, so that it is in nobody's time."""
        if len(self._rows) < n_frames:
            shape = (n_frames, self.n_slots, self.text.n_embd)
            self._rows = np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(DEVIATION)

    def count(self, shape: MediaShape, retain: float) -> int:
        return shape.n_frames * merge_count(self.n_slots, retain) + 1

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        return [VisualPart(self.count(shape, retain), self.count(shape, 1.0))]

    def merged_together(self, shape: MediaShape, window: int) -> list[int]:
        return [len(frames) * self.n_slots for frames in windows(shape.n_frames, window)]

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        check_clusters(tokens, self.merged_together(shape, tokens.merge_window))

    def n_tiles(self, shape: MediaShape) -> int:
        return 1

    def fit_for(self, shape: MediaShape) -> Fit | None:
        return None

    def rows_of_tiles(self, shape: MediaShape) -> list[int]:
        return []

    def encode(
        self, item: Video | Image, tokens: VisualTokenConfig, wanted: Sequence[int], tile_rows: TileRows
    ) -> list[VisualBlock]:
        clock, n_frames = Clock(), item.shape.n_frames
        self.prepare(n_frames)
        together = windows(n_frames, tokens.merge_window)
        with clock.timed("merge"):
            found = [merged_frames(list(self._rows[w.start : w.stop]), tokens) for w in together]
        groups = [group for w, m in zip(together, found, strict=True) for group in frame_groups(w, m)]
        rows = np.concatenate([*(m.rows for m in found), self._rows[:1, 0]])
        sizes = np.concatenate([*(m.sizes for m in found), np.ones(1, np.int32)])
        return [VisualBlock(rows, (*groups, TokenGroup(0, NEWLINE, NEWLINE)), ms=clock.ms, sizes=sizes)]

    def close(self) -> None:
        """Nothing is held natively."""
