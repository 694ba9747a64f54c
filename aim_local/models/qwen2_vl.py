"""Qwen2-VL: pictures and frames at their own size, frames in pairs, rotary ids of time, row and column.

A picture becomes patches of 14 px that are merged 2 x 2; sides are multiples of 28 px within limits of pixels. Two
frames are one tile, the last one of an odd number twice. A video is one block of pairs x rows x columns.
ref: transformers 5, models/qwen2_vl: image_processing_pil_qwen2_vl.py and video_processing_qwen2_vl.py (smart_resize),
modeling_qwen2_vl.py (get_rope_index). Published GGUF files lack the limits of pixels; these are the processors' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import MediaError
from ..media import MediaShape
from .base import Fit, TowerFacts, TowerFile
from .card import Card
from .parts import Arranged, PartTower, Pixels, Tile, tower_facts
from .pieces import Rotary
from .pixels import BICUBIC, resize

_FRAMES = 16
_MOST_STRETCHED = 200  # longer side to shorter
_COMMON = MediaShape("video", 2, 360, 640, "", "", (0.0, 1.0), (0, 1), 2.0)  # what facts without an item are of


@dataclass(frozen=True)
class Limits:
    """Pixels of a picture after resizing."""

    least: int
    most: int

    def under(self, most: int) -> Limits:
        """The same with a lower end, 0 for none."""
        return Limits(min(self.least, most), min(self.most, most)) if most else self

    @classmethod
    def read(cls, file: TowerFile, what: str, least: int, most: int) -> Limits:
        """what: "vision" for pictures, "video" for frames."""
        return cls(file.number(f"aim.{what}.min_pixels", least), file.number(f"aim.{what}.max_pixels", most))


class Qwen2VL(PartTower):
    """projector "qwen2vl_merger"."""

    cards: ClassVar[tuple[Card, ...]] = (
        Card(
            title="Qwen2-VL",
            checkpoints="Qwen's releases",
            text=("qwen2vl",),
            video="one block of pairs of frames; rotary ids of time, row and column",
            merging="yes, in windows of pairs too",
            converters=("qwen2_vl",),
        ),
    )

    gives_rotary_ids = True
    sees_any_size = True
    projector_type = "qwen2vl_merger"
    pair = 2

    def __init__(self, file: TowerFile) -> None:
        self.unit = 2 * file.size("patch_size")  # pixels of a visual token's side
        self.resample = file.number("aim.vision.resample", BICUBIC)
        square = self.unit**2
        self.picture_limits = Limits.read(file, "vision", *self.least_and_most(square)[0])
        self.frame_limits = Limits.read(file, "video", *self.least_and_most(square)[1])
        self.asked = (file.text.config.frame_tokens or 0) * square  # pixels of a frame at most, 0: no other limit
        super().__init__(file)

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return file.projector == cls.projector_type

    @staticmethod
    def least_and_most(token: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels of pictures and of frames where the file does not say; token: pixels of one visual token."""
        return (4 * token, 1280 * token), (128 * token, 768 * token)

    # --- sizes -----------------------------------------------------------------------------------------------------

    def picture_size(self, height: int, width: int) -> tuple[int, int]:
        """Pixels that the tower sees of a picture."""
        return smart_size(height, width, self.unit, self.picture_limits)

    def frame_size(self, shape: MediaShape) -> tuple[int, int]:
        """Pixels that the tower sees of each frame."""
        return smart_size(shape.height, shape.width, self.unit, self.frame_limits.under(self.asked))

    def _tile(self, frames: tuple[int, ...], size: tuple[int, int], name: str) -> Tile:
        height, width = size
        return Tile(frames, height // self.unit, width // self.unit, height, width, name)

    def pairs(self, shape: MediaShape) -> list[Tile]:
        """The tiles of a video."""
        last, size = shape.n_frames - 1, self.frame_size(shape)
        return [self._tile((i, min(i + 1, last)), size, "frame") for i in range(0, shape.n_frames, self.pair)]

    # --- what PartTower asks ---------------------------------------------------------------------------------------

    def arrange(self, shape: MediaShape) -> Arranged:
        if shape.kind == "video":
            return [tuple(self.pairs(shape))]
        return [(self._tile((0,), self.picture_size(shape.height, shape.width), "image"),)]

    def fit_for(self, shape: MediaShape) -> Fit:
        height, width = self.frame_size(shape)
        return lambda frame: resize(frame, height, width, self.resample)

    def picture_tiles(self, image: Pixels) -> list[Pixels]:
        return [resize(image, *self.picture_size(*image.shape[:2]), self.resample)]

    def times(self, n: int, shape: MediaShape) -> list[int]:
        """Ids in time of n tiles of one part."""
        return list(range(n))

    def rotary(self, tiles: Sequence[Tile], shape: MediaShape) -> Rotary:
        times = self.times(len(tiles), shape) if shape.kind == "video" else [0]
        ids = [np.indices((1, tile.rows, tile.cols), np.int32).reshape(3, -1).T for tile in tiles]
        for own, time in zip(ids, times, strict=True):
            own[:, 0] = time
        return Rotary(np.concatenate(ids), max(tiles[0].rows, tiles[0].cols))

    @property
    def default_frames(self) -> int:
        return self.file.number("aim.video.n_frames", _FRAMES)

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        return "<|image_pad|>", "<|video_pad|>"

    @property
    def facts(self) -> TowerFacts | None:
        return self.facts_of(_COMMON)

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return tower_facts(self.file, self.tiles(shape)[0])


def check_stretch(height: int, width: int) -> None:
    """Raises MediaError for a picture that no model of these takes."""
    if max(height, width) / min(height, width) > _MOST_STRETCHED:
        raise MediaError(
            f"a picture of {width}x{height} is too long and thin for this model, which takes up to "
            f"{_MOST_STRETCHED}:1; crop it first"
        )


def whole(pixels: float, unit: int, rounded: Callable[[float], int]) -> int:
    """A side in whole units, one at least."""
    return max(unit, rounded(pixels / unit) * unit)


def smart_size(height: int, width: int, unit: int, limits: Limits) -> tuple[int, int]:
    """Sides as multiples of `unit`, about the shape of the picture, within the limits. Raises MediaError.

    ref: transformers 5, models/qwen2_vl/image_processing_pil_qwen2_vl.py: smart_resize
    """
    check_stretch(height, width)
    to = round(height / unit) * unit, round(width / unit) * unit  # 0 where a side is less than half a unit
    if to[0] * to[1] > limits.most:
        shrink = math.sqrt(height * width / limits.most)
        return whole(height / shrink, unit, math.floor), whole(width / shrink, unit, math.floor)
    if to[0] * to[1] < limits.least:
        grow = math.sqrt(limits.least / (height * width))
        return whole(height * grow, unit, math.ceil), whole(width * grow, unit, math.ceil)
    return to
