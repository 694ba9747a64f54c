"""Gemma 3: a picture is one square of 896 px and 256 visual tokens, which see each other in the language model.

A video is a picture per frame; no times. Pan and scan, which adds crops of long pictures, is off in the processor too.
ref: transformers 5, models/gemma3/processing_gemma3.py and image_processing_pil_gemma3.py
"""

from __future__ import annotations

from ..errors import UsageError
from ..media import MediaShape
from .base import TowerFile
from .card import Card
from .parts import Arranged
from .pixels import BILINEAR, Pixels
from .squares import SquareTower

_BEGIN, _END = "\n\n<start_of_image>", "<end_of_image>\n\n"


class Gemma3(SquareTower):
    """projector "gemma3"."""

    cards = (
        Card(
            title="Gemma 3",
            checkpoints="Google's releases",
            text=("gemma3",),
            video="a picture a frame, whose rows see each other; no times",
            merging="yes",
            converters=("gemma3",),
            refused="most of its layers see a window of rows only",
        ),
    )

    both_ways = True
    scale = 4
    resample = BILINEAR
    frames = 8  # a large square each

    def __init__(self, file: TowerFile) -> None:
        super().__init__(file)
        n, fits = self.rows**2, file.text.config.n_ubatch
        if n > fits:
            raise UsageError(
                f"n_ubatch is {fits}, and a picture of this model is {n} visual tokens that see each other and are "
                f"computed together; give at least {n}"
            )

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return file.projector == "gemma3"

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        return "<start_of_image>", ""

    def arrange(self, shape: MediaShape) -> Arranged:
        name = "frame" if shape.kind == "video" else "image"
        found: Arranged = []
        for i in range(shape.n_frames):
            found += [_BEGIN, (self.square(i, name),), _END]
        return found

    def picture_tiles(self, image: Pixels) -> list[Pixels]:
        return [self.squared(image, self.filter)]
