"""What the families share whose tower sees squares of one size and makes a smaller square of visual tokens of each.

A family says which squares it makes of pictures and frames, and the text around them.
"""

from __future__ import annotations

from ..media import MediaShape
from .base import Fit, TowerFacts, TowerFile
from .head import damaged
from .parts import PartTower, Tile, tower_facts
from .pixels import BICUBIC, Pixels, resize


class SquareTower(PartTower):
    """Base of such a family. A frame of a video is one square, whatever its shape."""

    scale: int  # patches per side that become one visual token, where the file does not say
    resample = BICUBIC  # where the file does not say, as the next one
    frames = 16  # of a video

    def __init__(self, file: TowerFile) -> None:
        self.side = file.size("image_size")  # pixels
        self.filter = file.number("aim.vision.resample", self.resample)
        self.frame_filter = file.number("aim.video.resample", self.filter)
        patches = self.side // max(1, file.size("patch_size"))
        scale = file.number("clip.vision.projector.scale_factor", self.scale)
        self.rows = patches // scale  # of visual tokens
        if not self.rows:
            needed = f"a visual token is {scale} x {scale} patches, so that no square of pixels becomes one"
            raise damaged(file.header, "clip.vision.image_size", needed)
        super().__init__(file)

    def square(self, number: int, name: str) -> Tile:
        """number: of the frame, or of the square in its picture."""
        return Tile((number,), self.rows, self.rows, self.side, self.side, name)

    # --- what PartTower asks ---------------------------------------------------------------------------------------

    def fit_for(self, shape: MediaShape) -> Fit:
        return lambda frame: self.squared(frame, self.frame_filter)

    def squared(self, image: Pixels, resample: int) -> Pixels:
        """All of a picture in one square, its shape given up."""
        return resize(image, self.side, self.side, resample)

    @property
    def default_frames(self) -> int:
        return self.file.number("aim.video.n_frames", self.frames)

    @property
    def facts(self) -> TowerFacts | None:
        return tower_facts(self.file, self.square(0, "frame"))

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return self.facts


def cut(image: Pixels, side: int) -> list[Pixels]:
    """A picture whose sides are multiples of `side`, in squares, row by row."""
    height, width = image.shape[:2]
    return [image[y : y + side, x : x + side] for y in range(0, height, side) for x in range(0, width, side)]
