"""Qwen2.5-VL: Qwen2-VL whose ids in time count seconds, and whose tower attends inside windows.

ref: transformers 5, models/qwen2_5_vl: modeling_qwen2_5_vl.py (get_rope_index), processing_qwen2_5_vl.py
(second_per_grid_ts). The file does not say how many ids a second has; all published models have 2.
"""

from __future__ import annotations

import math

from ..media import MediaShape
from .card import Card
from .qwen2_vl import Qwen2VL

IDS_PER_SECOND = 2
_UNKNOWN = 0.5  # seconds between frames whose times nobody knows: the models are trained on 2 a second


class Qwen25VL(Qwen2VL):
    """projector "qwen2.5vl_merger"."""

    cards = (
        Card(
            title="Qwen2.5-VL",
            checkpoints="Qwen's releases",
            text=("qwen2vl",),
            video="as Qwen2-VL; ids of time count seconds",
            merging="yes, in windows of pairs too",
            converters=("qwen2_5_vl",),
        ),
    )

    projector_type = "qwen2.5vl_merger"

    def times(self, n: int, shape: MediaShape) -> list[int]:
        step = self.file.number("aim.video.ids_per_second", IDS_PER_SECOND) * self.pair * seconds_between(shape)
        return [int(i * step) for i in range(n)]


def seconds_between(shape: MediaShape) -> float:
    """Between two frames of a video: of the whole clip its duration / frames, of a part of it their mean gap."""
    n, times, duration = shape.n_frames, shape.timestamps, shape.duration
    if any(math.isnan(seconds) for seconds in times):
        return _UNKNOWN
    gap = (times[-1] - times[0]) / (n - 1) if n > 1 else 0.0
    is_whole = not math.isnan(duration) and times[0] <= gap and duration - times[-1] <= max(2 * gap, duration / n)
    return duration / n if is_whole else gap
