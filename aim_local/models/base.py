"""What the rest asks of a vision-language family: one small protocol, and the file a family is made from.

A family says how many visual tokens an item becomes and how it stands in the prompt (from sizes alone), what is kept of
a frame, and makes visual tokens of pixels. Which family a file is: registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import VisualTokenConfig
from ..errors import ModelError
from ..media import Image, MediaShape, Video
from ..native.devices import has_gpu
from ..native.kernels import described, resolved
from ..native.mtmd import MtmdContext
from ..native.rehearsal import rehearse
from ..reduction.planner import VisionShape
from ..store.gguf_header import GgufHeader, read_whole
from .pieces import Part, Rows, VisualBlock
from .text import TextModel
from .threads import thread_count
from .tower_head import check_tower_head
from .tower_tensors import check_tower_tensors

Frame = NDArray[np.uint8]
Fit = Callable[[Frame], Frame]


class TileRows(Protocol):
    """Rows of an item's tiles: asked for each, it makes the encoder run, or knows the rows already."""

    def __call__(
        self, number: int, pixels: Frame | None, encode: Callable[[], Rows], /, *, shared: bool = True
    ) -> Rows:
        """encode()'s float32 [n, width] of the tile with this number in its item.

        pixels: what the tower sees of it, None where no two tiles can be told to be the same picture. shared=False:
        other rows than those `frame_rows` gives, which are neither kept nor taken from elsewhere.
        """


class Tower(Protocol):
    """A vision tower beside its text model. Made without weights it counts and lays out, and cannot encode."""

    @property
    def projector(self) -> str:
        """clip.projector_type of its file, or what stands in for it."""

    @property
    def default_frames(self) -> int:
        """Frames a video is sampled to when nothing is asked."""

    @property
    def sees_any_size(self) -> bool:
        """Whether frames become more or fewer visual tokens by their size (LoadConfig.frame_tokens)."""

    @property
    def reduces_by_default(self) -> bool:
        """Whether a video's visual tokens are reduced when nothing is asked."""

    @property
    def media_tokens(self) -> tuple[str, str] | None:
        """What the chat template writes for an image and for a video ("": it writes none); None: it knows no media."""

    @property
    def chat_template(self) -> str | None:
        """Jinja text in the place of the language model's own, which loses what this family is given; None: its own."""

    def fit_for(self, shape: MediaShape) -> Fit | None:
        """What is kept of a decoded frame of such a video, uint8 [h, w, 3] -> what the tower sees; None: all of it."""

    @property
    def facts(self) -> TowerFacts | None:
        """Sizes for plans and figures, of a common frame; None where they depend on the loaded tower."""

    def facts_of(self, shape: MediaShape) -> TowerFacts | None:
        """The same of an item's tiles, where towers see pictures of any size."""

    def count(self, shape: MediaShape, retain: float) -> int:
        """Visual tokens of an item when token merging leaves the share `retain`, newline rows included."""

    def layout(self, shape: MediaShape, retain: float) -> list[Part]:
        """How an item stands in the prompt: its visual parts, and the text that its family writes around them."""

    def merged_together(self, shape: MediaShape, window: int) -> list[int]:
        """Rows of an item that are merged with each other: of each window of frames, of each part of a picture."""

    @property
    def gives_rotary_ids(self) -> bool:
        """Whether its blocks say how far rows are turned (VisualBlock.rotary), which a plain context cannot take."""

    def check_merging(self, shape: MediaShape, tokens: VisualTokenConfig) -> None:
        """Raises UsageError for token merging that this family cannot do to such an item."""

    def n_tiles(self, shape: MediaShape) -> int:
        """Encoder runs an item takes."""

    def rows_of_tiles(self, shape: MediaShape) -> list[int]:
        """Rows of each before token merging; [] where they depend on the loaded tower."""

    @property
    def frame_rows(self) -> Callable[[Frame], Rows] | None:
        """Encodes one fitted frame of a video, before token merging; None: an item is encoded as a whole.

        What it gives is what `encode` would ask `tile_rows` for, so frames can be encoded while others are decoded.
        """

    @property
    def precision(self) -> str:
        """How the tower computes: "exact" is llama.cpp's own kernels. Rows of another precision are other rows."""

    @property
    def patch_px(self) -> int:
        """Pixels of a patch's side, where a tile's rows depend on it alone and a grid of patches; 0 elsewhere."""

    def encode(
        self, item: Video | Image, tokens: VisualTokenConfig, wanted: Sequence[int], tile_rows: TileRows
    ) -> list[VisualBlock]:
        """Visual tokens of the wanted visual parts of an item.

        tile_rows: asked for the rows of every tile; it makes the encoder run, or knows the rows already.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class TowerFacts:
    """What a plan and a calibration need to know. n_slots: visual tokens of a frame before token merging.

    height, width: pixels of a tile; n_frames: of a video, that one shows. n_threads: the tower computes with.
    """

    vision: VisionShape
    header: GgufHeader | None
    n_slots: int
    height: int
    width: int
    n_frames: int
    n_threads: int

    @property
    def tile_bytes(self) -> int:
        """Of a tile's pixels."""
        return 3 * self.height * self.width * self.n_frames


@dataclass(frozen=True)
class TowerFile:
    """A mmproj beside its text model. weights: whether to load it."""

    path: Path
    header: GgufHeader
    text: TextModel
    weights: bool

    @classmethod
    def read(cls, path: Path, text: TextModel, *, weights: bool) -> TowerFile:
        """Raises ModelError for a file that is no mmproj, and for one whose head is damaged."""
        header = read_whole(path)
        found = header.architecture
        if found != "clip":
            raise ModelError(f"{path}: is a {found or 'nameless'} language model, not a mmproj; give it as model")
        check_tower_head(header)
        check_tower_tensors(header)
        return cls(path, header, text, weights)

    @property
    def metadata(self) -> dict[str, Any]:
        return self.header.metadata

    @property
    def precision(self) -> str:
        """Arithmetic and kernels of the loaded tower, such as "int8 (amx)", and what it merges inside."""
        config = self.text.config
        found = described("exact" if config.n_gpu_layers and has_gpu() else resolved(config.vision_precision))
        if config.vision_merge == 1:
            return found
        return f"{found}, {config.vision_merge:g} of the patches from {config.vision_merge_depth:g} of its depth on"

    @property
    def projector(self) -> str:
        """Of the tower that sees; a file that has another that hears names each apart."""
        found = self.metadata.get("clip.projector_type") or self.metadata.get("clip.vision.projector_type", "")
        return str(found)

    def size(self, key: str) -> int:
        """A number of the vision tower, 0 where the file has none."""
        return int(self.metadata.get(f"clip.vision.{key}", 0))

    def number(self, key: str, default: int) -> int:
        return int(self.metadata.get(key, default))

    @property
    def n_threads(self) -> int:
        return thread_count(self.text.config.n_threads, self.size("embedding_length"))

    def check_width(self) -> None:
        """Refuses what mtmd would refuse with less to go on."""
        width, takes = self._width, self.text.shape.n_embd  # without what the first layers add to a row
        if width and width != takes:
            raise ModelError(
                f"{self.path}: makes visual tokens of width {width}, {self.text.path} takes {takes}; "
                "take the mmproj that was converted with this model"
            )

    @property
    def _width(self) -> int:
        """Of a visual token; 0 where the file does not say.

        Files of upstream's script for LLaVA have CLIP's own projection_dim in that key, so the projector's last matrix
        counts where its name says that it is one.
        """
        if self.projector in ("mlp", "llava_onevision"):
            for tensor in self.header.tensors:
                if tensor.name == "mm.2.weight" and len(tensor.shape) == 2:
                    return tensor.shape[1]
        return self.size("projection_dim")

    def open(self) -> MtmdContext | None:
        """The loaded tower, None without weights. Raises ModelError."""
        if not self.weights:
            return None
        rehearse([self.header], "vision", weights=True)
        config = self.text.config
        return MtmdContext(
            self.path,
            self.text.llama,
            n_threads=self.n_threads,
            use_gpu=config.n_gpu_layers != 0,
            flash_attn=config.flash_attn,
            vision_precision=config.vision_precision,
            merging=(config.vision_merge, config.vision_merge_depth),
        )
