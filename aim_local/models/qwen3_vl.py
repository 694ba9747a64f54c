"""Qwen3-VL: patches of 16 px, each pair of frames with its time in the text, features for the first text layers.

A pair's time is the mean of its frames', and every pair has a beginning and an end inside those of the video. The
limits of pixels of a video count all its frames together. Behind the projected row stand those that the first layers of
the text tower add (deepstack); token merging averages them alike.
ref: transformers 5, models/qwen3_vl: processing_qwen3_vl.py, video_processing_qwen3_vl.py (smart_resize)
"""

from __future__ import annotations

import math

from ..media import MediaShape
from .card import Card
from .parts import Arranged
from .qwen2_vl import Qwen2VL, check_stretch, whole

_UNKNOWN = 0.5  # seconds between frames whose times nobody knows


class Qwen3VL(Qwen2VL):
    """projector "qwen3vl_merger"."""

    cards = (
        Card(
            title="Qwen3-VL",
            checkpoints="Qwen's releases",
            text=("qwen3vl",),
            video="`<1.5 seconds>` before each pair of frames; features for the first layers",
            merging="yes; features are averaged alike",
            converters=("qwen3_vl",),
        ),
        Card(
            title="Qwen3.5",
            checkpoints="Qwen's releases",
            text=("qwen35",),
            video="as Qwen3-VL",
            merging="yes",
            converters=("qwen3_5",),
            refused="its recurrent layers hold one state for all rows",
        ),
    )

    projector_type = "qwen3vl_merger"

    @staticmethod
    def least_and_most(token: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (64 * token, 16384 * token), (4 * token, 24576 * token)

    def frame_size(self, shape: MediaShape) -> tuple[int, int]:
        """As smart_resize of a video has it: the limits are of frames x height x width."""
        n, height, width, unit = shape.n_frames, shape.height, shape.width, self.unit
        check_stretch(height, width)
        n += n == 1  # one frame is a pair of equal ones
        if min(height, width) < unit:
            scale = max(unit / height, unit / width)
            height, width = int(height * scale), int(width * scale)
        even = round(n / self.pair) * self.pair
        limits = self.frame_limits.under(n * self.asked)
        to = round(height / unit) * unit, round(width / unit) * unit
        if even * to[0] * to[1] > limits.most:
            shrink = math.sqrt(n * height * width / limits.most)
            return whole(height / shrink, unit, math.floor), whole(width / shrink, unit, math.floor)
        if even * to[0] * to[1] < limits.least:
            grow = math.sqrt(limits.least / (n * height * width))
            return whole(height * grow, unit, math.ceil), whole(width * grow, unit, math.ceil)
        return to

    def arrange(self, shape: MediaShape) -> Arranged:
        if shape.kind == "image":
            return super().arrange(shape)
        found: Arranged = []
        for tile in self.pairs(shape):
            found += [f"<{self._seconds(tile.frames, shape):.1f} seconds><|vision_start|>", (tile,), "<|vision_end|>"]
        return found

    @staticmethod
    def _seconds(frames: tuple[int, ...], shape: MediaShape) -> float:
        times = [shape.timestamps[i] for i in frames]
        return (times[0] + times[-1]) / 2 if not any(map(math.isnan, times)) else _UNKNOWN * sum(frames) / len(frames)
