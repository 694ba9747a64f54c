"""InternVL 3 and 3.5: pictures as up to twelve squares of 448 px and all of it once more, frames as one square each.

The squares form the grid whose shape is nearest to the picture's. Frames are numbered in the prompt, without times.
ref: transformers 5, models/internvl/processing_internvl.py; models/got_ocr2/image_processing_pil_got_ocr2.py
"""

from __future__ import annotations

from ..media import MediaShape
from ..native.visual import put_class_position_last
from .base import TowerFile
from .card import Card
from .parts import Arranged
from .pixels import Pixels, resize
from .squares import SquareTower, cut

_BEGIN, _END = "<img>", "</img>"


class InternVL(SquareTower):
    """projector "internvl"."""

    cards = (
        Card(
            title="InternVL3 and 3.5",
            checkpoints="OpenGVLab's releases, transformers' layout and the authors'",
            text=("qwen2", "qwen3"),
            video="`Frame1:` before each frame, one square each; no times",
            merging="yes",
            converters=("internvl",),
        ),
    )

    scale = 2

    def __init__(self, file: TowerFile) -> None:
        self.least = file.number("aim.vision.min_tiles", file.number("clip.vision.preproc_min_tiles", 1))
        self.most = file.number("aim.vision.max_tiles", file.number("clip.vision.preproc_max_tiles", 12))
        if not file.number("aim.vision.crop_to_patches", 1):
            self.most = 1
        super().__init__(file)
        if self._context:
            put_class_position_last(self._context.handle)

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return file.projector == "internvl"

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        return "<IMG_CONTEXT>", "<video>"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of squares that a picture is cut into."""
        return nearest_grid(height, width, self.side, self.least, self.most) if self.most > 1 else (1, 1)

    def arrange(self, shape: MediaShape) -> Arranged:
        if shape.kind == "video":
            found: Arranged = []
            for i in range(shape.n_frames):
                lead = "\n" if i else ""
                found += [f"{lead}Frame{i + 1}: {_BEGIN}", (self.square(i, "frame"),), _END]
            return found
        rows, cols = self.grid(shape.height, shape.width)
        names = [f"row {i // cols + 1}, column {i % cols + 1}" for i in range(rows * cols)] if rows * cols > 1 else []
        return [_BEGIN, tuple(self.square(i, name) for i, name in enumerate([*names, "image"])), _END]

    def picture_tiles(self, image: Pixels) -> list[Pixels]:
        rows, cols = self.grid(*image.shape[:2])
        whole = self.squared(image, self.filter)
        if rows * cols == 1:
            return [whole]
        return [*cut(resize(image, rows * self.side, cols * self.side, self.filter), self.side), whole]


def nearest_grid(height: int, width: int, side: int, least: int, most: int) -> tuple[int, int]:
    """Rows and columns, least to most together, whose ratio is nearest to the picture's.

    Of equally near ones the larger, while the picture fills more than half of its pixels.
    ref: transformers 5, models/got_ocr2/image_processing_pil_got_ocr2.py: get_optimal_tiled_canvas
    """
    grids = [(r, c) for c in range(1, most + 1) for r in range(1, most + 1) if least <= r * c <= most]
    best, nearest = (1, 1), float("inf")
    for rows, cols in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        far = abs(width / height - cols / rows)
        if far < nearest:
            best, nearest = (rows, cols), far
        elif far == nearest and height * width > 0.5 * side * side * rows * cols:
            best = rows, cols
    return best
