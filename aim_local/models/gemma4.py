"""Gemma 4: pictures of any shape within a number of visual tokens, each frame of a video a small picture with its time.

A picture is scaled, up too, until its patches fill its share of tokens; 3 x 3 patches are one token. In large models
the tokens of a picture see each other, in layers with a window; in those of 2 and 4 billion parameters they do not.
ref: transformers 5, models/gemma4: processing_gemma4.py, image_processing_pil_gemma4.py, video_processing_gemma4.py;
modeling_gemma4.py (create_causal_mask_mapping). Which models see both ways is not in published GGUF files: as llama.cpp
has it (mtmd_decode_use_non_causal), by the width of the language model.
"""

from __future__ import annotations

import math

from ..errors import UsageError
from ..media import MediaShape
from .base import Fit, TowerFacts, TowerFile
from .card import Card
from .parts import Arranged, PartTower, Pixels, Tile, tower_facts
from .pixels import BICUBIC, resize

_FRAMES, _PICTURE_TOKENS, _FRAME_TOKENS = 32, 280, 70  # the processors' own
_ONE_WAY = (1536, 2560)  # widths of the language models of 2 and 4 billion parameters
_COMMON = MediaShape("video", 1, 720, 1280, "", "", (0.0,), (0,), 2.0)  # what facts without an item are of
_UNKNOWN = 1 / 24  # seconds between frames whose times nobody knows


class Gemma4(PartTower):
    """projectors "gemma4v" and, without layers, "gemma4uv"."""

    cards = (
        Card(
            title="Gemma 4",
            checkpoints="Google's releases",
            text=("gemma4",),
            video="`00:01` before each frame, a small picture",
            merging="yes",
            converters=("gemma4",),
            refused="as Gemma 3",
        ),
    )

    def __init__(self, file: TowerFile) -> None:
        self.unit = file.size("patch_size") * (file.size("projector.scale_factor") or 3)  # pixels of a token's side
        self.picture_tokens = file.number("aim.vision.max_tokens", _PICTURE_TOKENS)
        self.frame_tokens = file.number("aim.video.max_tokens", _FRAME_TOKENS)
        self.resample = file.number("aim.vision.resample", BICUBIC)
        self.both_ways = bool(file.number("aim.vision.both_ways", file.text.shape.n_embd not in _ONE_WAY))
        n, fits = max(self.picture_tokens, self.frame_tokens), file.text.config.n_ubatch
        if self.both_ways and n > fits:
            raise UsageError(
                f"n_ubatch is {fits}, and a picture of this model is up to {n} visual tokens that see each other and "
                f"are computed together; give at least {n}"
            )
        super().__init__(file)

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        return file.projector in ("gemma4v", "gemma4uv")

    def _tile(self, number: int, height: int, width: int, name: str) -> Tile:
        return Tile((number,), height // self.unit, width // self.unit, height, width, name)

    def size(self, height: int, width: int, kind: str) -> tuple[int, int]:
        """Pixels that the tower sees of a picture ("image") or a frame ("video")."""
        return filled_size(height, width, self.unit, self.frame_tokens if kind == "video" else self.picture_tokens)

    # --- what PartTower asks ---------------------------------------------------------------------------------------

    def arrange(self, shape: MediaShape) -> Arranged:
        size = self.size(shape.height, shape.width, shape.kind)
        if shape.kind == "image":
            return ["<|image>", (self._tile(0, *size, "image"),), "<image|>"]
        found: Arranged = []
        for i, seconds in enumerate(shape.timestamps):
            begin = f"{' ' if i else ''}{_clock(seconds if math.isfinite(seconds) else i * _UNKNOWN)} <|image>"
            found += [begin, (self._tile(i, *size, "frame"),), "<image|>"]
        return found

    def fit_for(self, shape: MediaShape) -> Fit:
        height, width = self.size(shape.height, shape.width, "video")
        return lambda frame: resize(frame, height, width, self.resample)

    def picture_tiles(self, image: Pixels) -> list[Pixels]:
        height, width = self.size(image.shape[0], image.shape[1], "image")
        return [resize(image, height, width, self.resample)]

    @property
    def default_frames(self) -> int:
        return self.file.number("aim.video.n_frames", _FRAMES)

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        return "<|image|>", "<|video|>"

    @property
    def facts(self) -> TowerFacts | None:
        return self.facts_of(_COMMON)

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        return tower_facts(self.file, self.tiles(shape)[0])


def filled_size(height: int, width: int, unit: int, n_tokens: int) -> tuple[int, int]:
    """The largest sides in whole units, about the shape of the picture, that are n_tokens units or fewer.

    ref: transformers 5, models/gemma4/image_processing_pil_gemma4.py: get_aspect_ratio_preserving_size
    """
    factor = math.sqrt(n_tokens * unit**2 / (height * width))
    rows, cols = math.floor(factor * height / unit), math.floor(factor * width / unit)
    if not rows:
        rows, cols = 1, min(width // height, n_tokens)
    elif not cols:
        rows, cols = min(height // width, n_tokens), 1
    return rows * unit, cols * unit


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"
