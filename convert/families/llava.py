"""LLaVA-1.5: a LLaMA language tower and a CLIP vision tower that sees the middle of a picture.

Checkpoints: transformers' LlavaForConditionalGeneration, and the authors' LlavaLlamaForCausalLM without tiles. One
picture is all it was trained on; the frames of a video are sent as pictures. ref: https://arxiv.org/abs/2310.03744

Keys of its own:

clip.vision.feature_layer       the hidden state that is read
v.blk.N.ln1, v.blk.N.attn_k     tensors of the last layer, which is not run: its keys say which patches are alike in the
                                authors' own reduction of pictures (docs/method.md)
aim.vision.shortest_edge        what a picture's shortest edge is resized to; 0: both sides to the tower's size
aim.vision.do_center_crop, aim.vision.do_pad
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from ..checkpoint import Checkpoint
from ..errors import ConvertError
from ..plan import Need
from ..preprocess import check_side, image_processor, read_preprocess, sides, video_processor
from ..templates import VICUNA, media_token
from ..vision_towers import CLIP, key_needs, mlp_needs, tower_needs
from .base import Family
from .layouts import architecture, is_original, text_tower, vision_tower


@dataclass(frozen=True)
class Llava(Family):
    """`shortest_edge`: see above, None for both sides. `crop`: cut out the middle. `pad_square`: pad before."""

    name = "llava"
    title = "LLaVA-1.5 (LLaMA or Vicuna with CLIP)"
    projector = "mlp"
    pictures = "clip-center-crop"
    chat_template = VICUNA

    shortest_edge: int | None
    crop: bool
    pad_square: bool

    def __post_init__(self) -> None:
        if self.vision.n_ff == self.vision.n_embd:
            # clip.cpp takes a square ffn of an "mlp" model for one of the files that had up and down swapped
            raise ConvertError(
                f"a CLIP tower whose ffn is as wide as its rows ({self.vision.n_ff}) cannot be told apart by llama.cpp"
            )

    @classmethod
    def recognises(cls, config: Mapping[str, Any]) -> bool:
        match architecture(config):
            case "LlavaForConditionalGeneration" | "llava":
                return "text_config" in config
            case "LlavaLlamaForCausalLM":
                return "mm_vision_tower" in config
        return False

    @classmethod
    def read(cls, checkpoint: Checkpoint, tower: Checkpoint | None) -> "Llava":
        config = checkpoint.config
        vision = vision_tower(config, tower, CLIP, layer=-2, strategy="default", family=cls.name)
        image = image_processor(checkpoint, tower)
        shortest_edge, crop = read_size(image, vision.image_size)
        padded = is_original(config) and config.get("image_aspect_ratio") == "pad"
        return cls(
            text=text_tower(config, "llama", cls.name),
            vision=vision,
            preprocess=read_preprocess(image, video_processor(checkpoint), CLIP),
            image_token=media_token(checkpoint, "image"),
            video_token=None,
            shortest_edge=shortest_edge,
            crop=crop,
            pad_square=bool(image.get("do_pad")) or padded,
        )

    def vision_needs(self) -> Iterator[tuple[Need, str]]:
        yield from tower_needs(self.vision)
        yield from key_needs(self.vision)
        yield from mlp_needs(self.vision.n_embd, self.text.n_embd)

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        # models/llava.cpp runs block_count - 1 layers unless told which hidden state is wanted
        writer.add_array("clip.vision.feature_layer", [self.vision.n_layer])
        writer.add_uint32("aim.vision.shortest_edge", self.shortest_edge or 0)
        writer.add_bool("aim.vision.do_center_crop", self.crop)
        writer.add_bool("aim.vision.do_pad", self.pad_square)


def read_size(image: Mapping[str, Any], side: int) -> tuple[int | None, bool]:
    """(shortest edge or None for both sides, is the middle cut out). The picture must end at the tower's `side`."""
    size = image.get("size", {"shortest_edge": side})
    crop = bool(image.get("do_center_crop", True))
    check_side(sides(image.get("crop_size") or side) if crop else sides(size), side)
    shortest = size if isinstance(size, int) else size.get("shortest_edge")
    return (int(shortest) if shortest else None), crop
