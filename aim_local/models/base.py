"""What a mmproj's head alone tells: how many visual tokens a media item becomes, and the defaults that follow from it.

Loads no weights. The tower that also encodes is vision.py; towers that only mtmd can count are foreign.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import VisualTokenConfig
from ..errors import ModelError
from ..media import Image, Video
from ..native.llama import TextModel, read_whole
from ..native.visual import AnyresPlan, merge_count, pool_side
from ..reduction.planner import VisionShape
from ..store.gguf_header import GgufHeader
from .pieces import MediaPiece, Piece, TextPiece
from .pixels import PreprocessConfig, plan_image
from .prompt import ChatTemplate, split_marks

Count = Callable[[Video | Image, float], int]  # (media item, share retained) -> visual tokens

_FOREIGN_FRAMES = 8  # every frame is a whole picture there
_MANY_TOKENS = 64  # per frame; the paper's setting was found at 196
_OWN = ("mlp", "llava_onevision")
_NORM_WEIGHT = "mm.3.weight"  # clip.cpp tells MLP_NORM (Yi) from MLP by this tensor


class VisionHead:
    """The head of a mmproj beside its text model."""

    def __init__(self, path: Path, text: TextModel) -> None:
        self.path, self.text = path, text
        self.header: GgufHeader = read_whole(path)
        self.metadata = self.header.metadata
        self._check_fit()
        self.is_foreign = not _takes_tiles(self.header)
        if not self.is_foreign:
            self._pixels = PreprocessConfig.from_metadata(self.metadata)

    def _check_fit(self) -> None:
        """Refuses what mtmd would refuse with less to go on."""
        found = str(self.metadata.get("general.architecture", ""))
        if found != "clip":
            raise ModelError(f"{self.path}: is a {found or 'nameless'} language model, not a mmproj; give it as model")
        width = self.metadata.get("clip.vision.projection_dim")
        if width and self.projector in _OWN and width != self.text.n_embd:
            raise ModelError(
                f"{self.path}: makes visual tokens of width {width}, {self.text.path} takes {self.text.n_embd}; "
                "take the mmproj that was converted with this model"
            )

    # --- facts ---

    @property
    def projector(self) -> str:
        return str(self.metadata.get("clip.projector_type", ""))

    @property
    def patches_per_side(self) -> int:
        """Of a tile of a tower that is not foreign."""
        return self._size("image_size") // max(1, self._size("patch_size"))

    @property
    def shape(self) -> VisionShape:
        """Sizes for the planner, of a tower that is not foreign."""
        return VisionShape(
            n_layer=self._size("block_count"),
            n_embd=self._size("embedding_length"),
            n_ff=self._size("feed_forward_length"),
            n_head=self._size("attention.head_count"),
            n_patch=self.patches_per_side**2,
            patch_px=self._size("patch_size"),
            n_embd_text=self.text.n_embd,
        )

    def _size(self, key: str) -> int:
        return int(self.metadata.get(f"clip.vision.{key}", 0))

    @property
    def default_frames(self) -> int:
        return int(self.metadata.get("aim.video.n_frames", _FOREIGN_FRAMES if self.is_foreign else 32))

    @property
    def reduces_by_default(self) -> bool:
        """Whether a video's visual tokens are reduced when nothing is asked.

        Yes for the paper's video model; no where a frame has few tokens to begin with, as in the demo model.
        """
        return self._pools and self.frame_slots >= _MANY_TOKENS

    @property
    def media_tokens(self) -> tuple[str, str]:
        """What the chat template writes for an image and for a video ("" where it writes none)."""
        image = str(self.metadata.get("aim.image_token", "<image>"))
        return image, str(self.metadata.get("aim.video_token", ""))

    @property
    def _pools(self) -> bool:
        return self.projector == "llava_onevision"

    @property
    def frame_slots(self) -> int:
        """Visual tokens of one video frame before token merging, newline not counted."""
        side = pool_side(self.patches_per_side) if self._pools else self.patches_per_side
        return side * side

    # --- plan ---

    def plan(self, rendered: str, media: Sequence[Video | Image], tokens: VisualTokenConfig) -> tuple[list[Piece], Any]:
        """Pieces of a rendered prompt with their counts, and what must be kept alive with them."""
        return plan_pieces(self.text, self.count, rendered, media, tokens.merge_retain), None

    def count(self, item: Video | Image, retain: float) -> int:
        """Visual tokens of a media item after token merging, newline rows included."""
        if isinstance(item, Video):
            return len(item.frames) * merge_count(self.frame_slots, retain) + (1 if self._pools else 0)
        if self._pools:
            return self._image_plan(item).count(retain)
        return merge_count(self.patches_per_side**2, retain)

    def n_tiles(self, item: Video | Image) -> int:
        """Encoder runs a media item takes; of a foreign tower each piece of it."""
        if self.is_foreign:
            return 1
        if isinstance(item, Video):
            return len(item.frames)
        if not self._pools:
            return 1
        return self._image_plan(item).n_tiles

    def _image_plan(self, item: Image) -> AnyresPlan:
        height, width = item.pixels.shape[:2]
        return plan_image(height, width, self._pixels, self.patches_per_side)


def _takes_tiles(header: GgufHeader) -> bool:
    """Whether we run this tower tile by tile, as aim_mtmd_has_tiles decides for a loaded one."""
    projector = str(header.metadata.get("clip.projector_type", ""))
    is_norm = any(tensor.name == _NORM_WEIGHT for tensor in header.tensors)
    return projector == "llava_onevision" or (projector == "mlp" and not is_norm)


def plan_pieces(
    text: TextModel, count: Count, rendered: str, media: Sequence[Video | Image], retain: float
) -> list[Piece]:
    """Pieces of a rendered prompt; count(item, share) has the visual tokens that token merging leaves of an item."""
    pieces: list[Piece] = []
    for part in split_marks(rendered):
        if isinstance(part, int):
            pieces.append(MediaPiece(part, count(media[part], retain), count(media[part], 1.0)))
        else:
            pieces.append(TextPiece(text.tokenize(part, start=not pieces)))
    return pieces


def make_template(text: TextModel, vision: VisionHead | None) -> ChatTemplate:
    """The model's chat template, with what it writes for media. Raises ModelError."""
    image, video = vision.media_tokens if vision else ("", "")
    return ChatTemplate(
        text.chat_template,
        bos=text.bos_text,
        eos=text.eos_text,
        image_token=image,
        video_token=video,
        structured=vision is None or not vision.is_foreign,
    )
