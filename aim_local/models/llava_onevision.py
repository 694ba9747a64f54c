"""LLaVA-OneVision: SigLIP tiles, frames pooled to half the side, one newline row behind the last frame.

Pictures: anyres.py.
ref: transformers 5, models/llava_onevision/modeling_llava_onevision.py: apply_pooling
"""

from __future__ import annotations

from ..native.visual import pool_rows, pool_side
from .anyres import AnyresTower
from .base import TowerFile
from .card import Card
from .pieces import Rows
from .tiles import MANY_TOKENS


class LlavaOnevision(AnyresTower):
    """projector "llava_onevision"."""

    cards = (
        Card(
            title="LLaVA-OneVision",
            checkpoints="llava-hf and lmms-lab releases",
            text=("qwen2",),
            video="one block, a newline row behind the last frame",
            merging="yes, in windows of frames too",
            converters=("llava_onevision",),
        ),
    )

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return file.projector == "llava_onevision"

    @property
    def frame_side(self) -> int:
        return pool_side(self.patches_per_side)

    @property
    def reduces_by_default(self) -> bool:
        """Not where a frame has few tokens to begin with, as in the demo model."""
        return self.frame_side**2 >= MANY_TOKENS

    @property
    def n_end_newlines(self) -> int:
        return 1

    def pool(self, patches: Rows) -> Rows:
        return pool_rows(patches, self.patches_per_side)
