"""LLaVA-NeXT (LLaVA-1.6) and LLaVA-NeXT-Video: LLaVA-1.5's CLIP tower, pictures of any resolution.

Pictures: anyres.py, with no limit on the tiles. The frames of a clip, where the file says that it was trained on clips
(aim.video.pool), are pooled two by two before the projector, and no newline follows; else each is a base view.
Files are told by aim.family, or by what upstream's script writes: pinpoints, and the newline under its old name.
ref: transformers 5, models/llava_next_video/modeling_llava_next_video.py: LlavaNextVideoPooler, get_video_features
"""

from __future__ import annotations

from ..errors import ModelError
from ..media import MediaShape
from .anyres import AnyresTower
from .base import Fit, TowerFile
from .card import Card
from .pieces import Rows
from .pixels import resize, video_frame
from .tiles import MANY_TOKENS, Pixels, average_squares

_NEWLINES = ("model.image_newline", "v.image_newline")


class LlavaNext(AnyresTower):
    """projector "mlp"."""

    cards = (
        Card(
            title="LLaVA-NeXT and LLaVA-NeXT-Video",
            checkpoints="llava-hf and original releases (Vicuna, Mistral); the mmproj of llama.cpp's own script too",
            text=("llama",),
            video="one block, no times; a frame is pooled 2 x 2 where the model was trained on clips, else a base view",
            merging="yes, in windows of frames too; base view and grid of a picture apart, newlines never",
            converters=("llava_next",),
        ),
    )

    def __init__(self, file: TowerFile) -> None:
        self._pool = str(file.metadata.get("aim.video.pool", ""))
        self._stride = file.number("aim.video.pool_stride", 2) if self._pool else 1
        super().__init__(file)
        if self._pool not in ("", "average") or not 1 <= self._stride <= self.patches_per_side:
            raise ModelError(
                f"{file.path}: pools frames by {self._pool!r} over {self._stride}; known is 'average' over up to "
                f"{self.patches_per_side}: convert it again"
            )

    @classmethod
    def handles(cls, file: TowerFile) -> bool:
        if str(file.metadata.get("aim.family", "")) == "llava_next":
            return True
        has_newline = any(tensor.name in _NEWLINES for tensor in file.header.tensors)
        return file.projector == "mlp" and has_newline and bool(file.metadata.get("clip.vision.image_grid_pinpoints"))

    # --- frames ----------------------------------------------------------------------------------------------------

    @property
    def frame_side(self) -> int:
        return self.patches_per_side // self._stride

    @property
    def reduces_by_default(self) -> bool:
        return bool(self._pool) and self.frame_side**2 >= MANY_TOKENS

    @property
    def fit(self) -> Fit:
        """Shortest edge and middle for a clip model; else the whole frame, stretched as a base view is."""
        pixels = self.pixels
        if self._pool:
            return lambda frame: video_frame(frame, pixels)
        return lambda frame: resize(frame, pixels.side, pixels.side, pixels.resample)

    def frame_shape(self, shape: MediaShape) -> tuple[int, int]:
        return (1, 1) if self._pool else (shape.height, shape.width)

    def frame_rows(self, tile: Pixels) -> Rows:
        """Pooled before the projector, which is no linear map."""
        if not self._pool:
            return self.encoder.encode(tile)
        return self.encoder.project(average_squares(self.encoder.features(tile), self._stride))
