"""LLaVA-OneVision: a Qwen2 language tower and a SigLIP vision tower that sees images as a grid of tiles.

Checkpoints: transformers' LlavaOnevisionForConditionalGeneration, and the authors' LlavaQwenForCausalLM whose videos
end in one newline token. ref: https://arxiv.org/abs/2408.03326, https://github.com/LLaVA-VL/LLaVA-NeXT

Keys of its own:

clip.vision.image_grid_pinpoints   tile layouts, flat, each width before height
clip.vision.mm_patch_merge_type    "spatial_unpad"
aim.vision.max_tiles               9 of anyres_max_9: grids above this are shrunk bilinearly
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from ..checkpoint import Checkpoint
from ..errors import ConvertError, Unsupported
from ..plan import Need
from ..preprocess import (
    BICUBIC,
    N_FRAMES,
    Preprocess,
    check_side,
    image_processor,
    read_preprocess,
    sides,
    video_processor,
)
from ..templates import CHATML, media_token
from ..text import TextSpec
from ..vision_towers import SIGLIP, VisionSpec, mlp_needs, tower_needs
from .base import Family
from .layouts import architecture, is_original, text_tower, vision_tower

MERGE = "spatial_unpad"
MAX_TILES = 9


@dataclass(frozen=True)
class LlavaOnevision(Family):
    """`pinpoints`: tile layouts as (height, width) in pixels. `max_tiles`: as aim.vision.max_tiles above."""

    name = "llava_onevision"
    title = "LLaVA-OneVision (Qwen2 with SigLIP)"
    projector = "llava_onevision"
    pictures = "onevision"
    chat_template = CHATML

    pinpoints: tuple[tuple[int, int], ...]
    max_tiles: int

    @classmethod
    def recognises(cls, config: Mapping[str, Any]) -> bool:
        match architecture(config):
            case "LlavaOnevisionForConditionalGeneration" | "llava_onevision":
                return True
            case "LlavaQwenForCausalLM":
                return "mm_vision_tower" in config
        return False

    @classmethod
    def read(cls, checkpoint: Checkpoint, tower: Checkpoint | None) -> "LlavaOnevision":
        check_layout(checkpoint.config)
        return read_model(checkpoint, tower, cls.name)

    def vision_needs(self) -> Iterator[tuple[Need, str]]:
        yield from tower_needs(self.vision)
        yield from mlp_needs(self.vision.n_embd, self.text.n_embd)
        yield Need("newline", (self.text.n_embd,)), "v.image_newline"

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        pinpoints = [side for h, w in self.pinpoints for side in (w, h)]  # clip: w, h
        writer.add_array("clip.vision.image_grid_pinpoints", pinpoints)
        writer.add_string("clip.vision.mm_patch_merge_type", MERGE)
        writer.add_uint32("aim.vision.max_tiles", self.max_tiles)


def check_layout(config: Mapping[str, Any]) -> None:
    """Of the authors' releases: those whose video ends in one newline."""
    merge = config.get("mm_patch_merge_type", MERGE)
    newline = config.get("mm_newline_position", "one_token")
    if is_original(config) and (merge != MERGE or newline != "one_token"):
        raise Unsupported(
            f"{architecture(config)} with patch merge {merge!r} and newlines {newline!r} is not supported"
        )


def read_model(
    checkpoint: Checkpoint, tower: Checkpoint | None, family: str, n_frames: int = N_FRAMES
) -> LlavaOnevision:
    """What this family and those built on it read alike. `family`: whom to name in errors. `n_frames`: the default."""
    config = checkpoint.config
    vision = vision_tower(config, tower, SIGLIP, layer=-1, strategy="full", family=family)
    image = image_processor(checkpoint, tower)
    if "size" in image:
        check_side(sides(image["size"]), vision.image_size)
    return LlavaOnevision(
        text=text_tower(config, "qwen2", family),
        vision=vision,
        preprocess=read_preprocess(image, video_processor(checkpoint), SIGLIP, n_frames),
        image_token=media_token(checkpoint, "image"),
        video_token=media_token(checkpoint, "video"),
        pinpoints=read_pinpoints(config, vision.image_size),
        max_tiles=read_max_tiles(config),
    )


def plain_model(
    text: TextSpec, *, image_size: int, patch_size: int, n_embd: int, n_ff: int, n_layer: int, n_head: int
) -> LlavaOnevision:
    """A model that no checkpoint describes: `text` beside a vision tower of these sizes, all else as published."""
    vision = VisionSpec(
        SIGLIP, image_size, patch_size, n_embd, n_ff, n_layer, n_layer, n_head, eps=1e-6, activation="gelu"
    )
    return LlavaOnevision(
        text=text,
        vision=vision,
        preprocess=Preprocess(SIGLIP.mean, SIGLIP.std, BICUBIC, BICUBIC, N_FRAMES, default=False),
        image_token="<image>",
        video_token="<video>",
        pinpoints=all_pinpoints(image_size),
        max_tiles=MAX_TILES,
    )


def all_pinpoints(side: int) -> tuple[tuple[int, int], ...]:
    """Grids up to 6 x 6 tiles."""
    return tuple((side * h, side * w) for h in range(1, 7) for w in range(1, 7))


def read_pinpoints(config: Mapping[str, Any], side: int) -> tuple[tuple[int, int], ...]:
    """Tile layouts as (height, width).

    The authors' code reads its list as (width, height), and knows the short form "(1x1),...,(6x6)" in tiles.
    """
    listed = config.get("image_grid_pinpoints")
    if listed is None:
        return all_pinpoints(side)
    if isinstance(listed, str):
        ends = [int(n) for n in re.findall(r"\d+", listed)]
        if len(ends) < 4:
            raise ConvertError(f"image_grid_pinpoints {listed!r} is not of the form '(1x1),...,(6x6)'")
        return tuple((side * b, side * a) for a in range(ends[0], ends[-2] + 1) for b in range(ends[1], ends[-1] + 1))
    pairs = [(int(a), int(b)) for a, b in listed]
    return tuple((b, a) if is_original(config) else (a, b) for a, b in pairs)


def read_max_tiles(config: Mapping[str, Any]) -> int:
    """9 of "anyres_max_9"."""
    key = "image_aspect_ratio" if is_original(config) else "vision_aspect_ratio"
    ratio = str(config.get(key, f"anyres_max_{MAX_TILES}"))
    found = re.fullmatch(r"anyres_max_(\d+)", ratio)
    if not found:
        raise Unsupported(f"image aspect ratio {ratio!r} is not supported ('anyres_max_9' is)")
    return int(found[1])
