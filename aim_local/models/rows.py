"""Visual rows out of nothing, in the place of a vision tower: the language model's part of a run, measured alone.

The costs of the language model depend on how many rows there are, not on their values. Token merging runs on them for
real. Counts are those of the tower it stands for, for frames of the size that its facts are of (TowerFacts); it is one
visual part, without the text that a family writes around its frames.
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
from .keys import refuse_keys
from .pieces import Part, Rows, TokenGroup, VisualBlock, VisualPart
from .text import TextModel
from .tiles import NEWLINE, Clock, frame_groups, windows

N_SLOTS = 196  # of a 384 px frame: 27 x 27 patches pooled to 14 x 14
DEVIATION = 0.02


class RowsTower:
    """In the place of a tower, without weights, that counts; None: n_slots rows a frame, and a newline row at the end.

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
        tower: Tower | None = None,
        media_tokens: tuple[str, str] | None = ("<image>", "<video>"),
        chat_template: str | None = None,
    ) -> None:
        self.text, self.n_slots, self.tower = text, n_slots, tower
        self.media_tokens, self.chat_template = media_tokens, chat_template
        self._rows: list[Rows] = []  # of each tile

    @classmethod
    def like(cls, tower: Tower | None, text: TextModel) -> RowsTower:
        """In the place of a model's own tower, which goes on to count. Raises UsageError where sizes do not tell."""
        if tower is None:
            return cls(text)
        if tower.facts is None:
            raise UsageError(
                f"the tokens of projector {tower.projector!r} depend on the pictures, the tower cannot be skipped; "
                "leave skip_vision and stock out"
            )
        return cls(text, tower=tower, media_tokens=tower.media_tokens, chat_template=tower.chat_template)

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return None

    # --- counts ----------------------------------------------------------------------------------------------------

    def _usual(self, n_frames: int) -> MediaShape:
        """A video of so many frames, one a second, of the size that the tower's facts are of."""
        facts = self.tower.facts if self.tower else None
        height, width = (facts.height, facts.width) if facts else (1, 1)
        times = tuple(float(i) for i in range(n_frames))
        return MediaShape("video", n_frames, height, width, "", "", times, tuple(range(n_frames)), float(n_frames))

    @property
    def _pair(self) -> int:
        """Frames that one tile shows."""
        return self.tower.facts.n_frames if self.tower and self.tower.facts else 1

    def _tiles(self, n_frames: int) -> list[int]:
        """Rows of each tile before token merging."""
        return self.tower.rows_of_tiles(self._usual(n_frames)) if self.tower else [self.n_slots] * n_frames

    def _n_newlines(self, n_frames: int) -> int:
        """Rows beside those of tiles, which are never merged."""
        if self.tower is None:
            return 1
        return self.tower.count(self._usual(n_frames), 1.0) - sum(self._tiles(n_frames))

    def _windows(self, n_frames: int, window: int) -> list[range]:
        """Tiles that are merged together. window: in frames."""
        return windows(len(self._tiles(n_frames)), max(1, window // self._pair))

    def count(self, shape: MediaShape, retain: float) -> int:
        n = shape.n_frames
        return sum(merge_count(rows, retain) for rows in self._tiles(n)) + self._n_newlines(n)

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        return [VisualPart(self.count(shape, retain), self.count(shape, 1.0))]

    def merged_together(self, shape: MediaShape, window: int) -> list[int]:
        rows = self._tiles(shape.n_frames)
        return [sum(rows[w.start : w.stop]) for w in self._windows(shape.n_frames, window)]

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        refuse_keys(tokens, "random rows")
        if self.tower:
            self.tower.check_merging(self._usual(shape.n_frames), tokens)
        check_clusters(tokens, self.merged_together(shape, tokens.merge_window))

    def n_tiles(self, shape: MediaShape) -> int:
        return 1

    def fit_for(self, shape: MediaShape) -> Fit | None:
        return None

    def rows_of_tiles(self, shape: MediaShape) -> list[int]:
        return []

    # --- rows ------------------------------------------------------------------------------------------------------

    def prepare(self, n_frames: int) -> None:
        """Draws the rows of n_frames frames, so that it is in nobody's time."""
        sizes = self._tiles(n_frames)
        if [len(rows) for rows in self._rows] != sizes:
            rng, width = np.random.default_rng(0), self.text.n_embd
            self._rows = [rng.standard_normal((n, width), np.float32) * np.float32(DEVIATION) for n in sizes]

    def encode(
        self, item: Video | Image, tokens: VisualTokenConfig, wanted: Sequence[int], tile_rows: TileRows
    ) -> list[VisualBlock]:
        clock, n_frames = Clock(), item.shape.n_frames
        self.prepare(n_frames)
        together, n_newlines = self._windows(n_frames, tokens.merge_window), self._n_newlines(n_frames)
        with clock.timed("merge"):
            found = [merged_frames(self._rows[w.start : w.stop], tokens) for w in together]
        frames = [range(w.start * self._pair, w.stop * self._pair, self._pair) for w in together]
        groups = [group for w, m in zip(frames, found, strict=True) for group in frame_groups(w, m)]
        groups += [TokenGroup(0, NEWLINE, NEWLINE)] * n_newlines
        rows = np.concatenate([*(m.rows for m in found), np.repeat(self._rows[0][:1], n_newlines, axis=0)])
        sizes = np.concatenate([*(m.sizes for m in found), np.ones(n_newlines, np.int32)])
        return [VisualBlock(rows, tuple(groups), ms=clock.ms, sizes=sizes)]

    def close(self) -> None:
        """Nothing is held natively."""
