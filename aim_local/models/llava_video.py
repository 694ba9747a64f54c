"""LLaVA-Video (Qwen2): LLaVA-OneVision's tower, a newline behind each row of a frame's grid, times in the prompt.

Its file says which pooling and which newlines the checkpoint was trained with (aim.video.*); what they mean, with its
sources, stands in convert/families/llava_video.py. Times are the frames' own, which are the authors' index / mean frame
rate where the frame rate does not change.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ModelError
from ..media import MediaShape
from ..native.visual import Merged, pool_rows
from .base import TowerFile
from .card import Card
from .llava_onevision import LlavaOnevision
from .pieces import Part, Rows
from .tiles import NEWLINE, average_squares

POOLS = ("bilinear", "average")
NEWLINES = ("grid", "one_token")


class LlavaVideo(LlavaOnevision):
    """Pictures are LLaVA-OneVision's."""

    cards = (
        Card(
            title="LLaVA-Video",
            checkpoints="lmms-lab releases",
            text=("qwen2",),
            video="one block with newline rows, then duration and times",
            merging="yes, in windows of frames too; newlines never",
            converters=("llava_video",),
        ),
    )

    def __init__(self, file: TowerFile) -> None:
        metadata = file.metadata
        self._how = str(metadata.get("aim.video.pool", "bilinear"))
        self._stride = file.number("aim.video.pool_stride", 2)
        self._newlines = str(metadata.get("aim.video.newline", "grid"))
        self._tells_times = bool(metadata.get("aim.video.times", True))
        super().__init__(file)
        if self._how not in POOLS or self._newlines not in NEWLINES or (self._how == "bilinear" and self._stride != 2):
            raise ModelError(
                f"{file.path}: pools frames by {self._how!r} over {self._stride} with newlines {self._newlines!r}; "
                f"known are {', '.join(POOLS)} (bilinear over 2) and newlines {', '.join(NEWLINES)}: convert it again"
            )

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return str(file.metadata.get("aim.family", "")) == "llava_video"

    # --- frames ----------------------------------------------------------------------------------------------------

    @property
    def frame_side(self) -> int:
        return super().frame_side if self._how == "bilinear" else self.patches_per_side // self._stride

    @property
    def n_frame_newlines(self) -> int:
        return self.frame_side if self._newlines == "grid" else 0

    @property
    def n_end_newlines(self) -> int:
        return 1 if self._newlines == "one_token" else 0

    def pool(self, patches: Rows) -> Rows:
        """[patches_per_side^2, n_embd] -> [frame_side^2, n_embd]"""
        if self._how == "bilinear":
            return pool_rows(patches, self.patches_per_side)
        return average_squares(patches, self._stride)

    def close_frames(self, found: Merged) -> Merged:
        """A newline behind the last survivor of each row of each frame's grid; newlines are never merged.

        It is there where a row of the grid, or a whole frame of a window, has no survivor.
        """
        if self._newlines != "grid" or self.newline is None:
            return found
        side = self.frame_side
        row_of = found.slots // side  # counted through the window's frames
        ends = np.searchsorted(row_of, np.arange(len(found.owners) // side), side="right")
        rows = np.insert(found.rows, ends, self.newline, axis=0)
        slots = np.insert(found.slots, ends, NEWLINE).astype(np.int32)
        return Merged(rows, slots, (found.owners + row_of[found.owners]).astype(np.int32))

    # --- the prompt ------------------------------------------------------------------------------------------------

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        """Behind a video stands when its frames are, where that is known (not for frames given as an array)."""
        parts = super().layout(shape, retain)
        if shape.kind == "image" or not self._tells_times:
            return parts
        known = not math.isnan(shape.duration) and not any(math.isnan(seconds) for seconds in shape.timestamps)
        return [*parts, times_text(shape)] if known else parts


def times_text(shape: MediaShape) -> str:
    """As the authors write it, the missing space before "Please" included."""
    at = ",".join(f"{seconds:.2f}s" for seconds in shape.timestamps)
    return (
        f"\nThe video lasts for {shape.duration:.2f} seconds, and {shape.n_frames} frames are uniformly sampled from "
        f"it. These frames are located at {at}.Please answer the following questions related to this video."
    )
