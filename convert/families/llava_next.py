"""LLaVA-NeXT (LLaVA-1.6) and LLaVA-NeXT-Video: LLaVA-1.5's towers, pictures as a base view and a grid of tiles.

Checkpoints: transformers' LlavaNextForConditionalGeneration and LlavaNextVideoForConditionalGeneration, and the
authors' LlavaLlamaForCausalLM and LlavaMistralForCausalLM with tiles. The language tower is a LLaMA (Vicuna) or a
Mistral, which llama.cpp runs as a LLaMA. ref: https://llava-vl.github.io/blog/2024-01-30-llava-next/,
https://llava-vl.github.io/blog/2024-04-30-llava-next-video/, transformers' models/llava_next and llava_next_video

What the runtime must do:

1. Pictures (image_processing_llava_next): of the pinpoints the one that keeps most of the picture and wastes least; the
   picture resized into it, centred on black, cut into tiles; before them the base view, the picture stretched to a
   tile. Rows (pack_image_features): base view, then the grid without the patches that are padding, a newline behind
   each of its rows. There is no limit on the tiles.
2. Clips, of checkpoints that were trained on them (video_processing_llava_next_video): each frame's shortest edge to
   the tower's size, the middle cut out; what the tower gives is pooled before the projector (LlavaNextVideoPooler:
   means of 2 x 2, no newlines): 12 x 12 of 24 x 24.

Keys of its own, beside LLaVA-1.5's:

aim.family                         "llava_next"
clip.vision.image_grid_pinpoints   tile layouts, flat, each width before height
clip.vision.mm_patch_merge_type    "spatial_unpad"
aim.video.pool                     "average", where it was trained on clips
aim.video.pool_stride              patches per pooled token along a side
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from ..checkpoint import Checkpoint, section
from ..errors import ConvertError, Unsupported
from ..plan import Need
from ..preprocess import image_processor, read_preprocess, video_processor
from ..templates import MISTRAL, media_token
from ..text import TextSpec, read_text
from ..vision_towers import CLIP, mlp_needs, tower_needs
from .layouts import architecture, is_original, vision_tower
from .llava import Llava, read_size

MERGE = "spatial_unpad"
VIDEO = ("LlavaNextVideoForConditionalGeneration", "llava_next_video")
NESTED = ("LlavaNextForConditionalGeneration", "llava_next", *VIDEO)
ORIGINAL = ("LlavaLlamaForCausalLM", "LlavaMistralForCausalLM")
PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))  # transformers' default: height, width

# what transformers' MistralConfig leaves to its defaults, where they are not LlamaConfig's
MISTRAL_DEFAULTS: dict[str, Any] = {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}


@dataclass(frozen=True)
class LlavaNext(Llava):
    """`pinpoints`: tile layouts as (height, width) in pixels. `stride`: of the pooling of frames, 0 without clips."""

    name = "llava_next"
    title = "LLaVA-NeXT and LLaVA-NeXT-Video (Vicuna or Mistral with CLIP)"
    pictures = "anyres"

    pinpoints: tuple[tuple[int, int], ...]
    stride: int

    @classmethod
    def recognises(cls, config: Mapping[str, Any]) -> bool:
        arch = architecture(config)
        return arch in NESTED or (arch in ORIGINAL and "unpad" in str(config.get("mm_patch_merge_type", "")))

    @classmethod
    def read(cls, checkpoint: Checkpoint, tower: Checkpoint | None) -> "LlavaNext":
        config = checkpoint.config
        check_layout(config)
        vision = vision_tower(config, tower, CLIP, layer=-2, strategy="default", family=cls.name)
        image, video = image_processor(checkpoint, tower), video_processor(checkpoint)
        read_size(image, vision.image_size)  # tiles are of the tower's size
        shortest_edge, crop = read_size(video or image, vision.image_size)
        is_mistral = text_config(config).get("model_type") == "mistral"
        is_video = architecture(config) in VIDEO
        return (LlavaNextMistral if is_mistral else LlavaNext)(
            text=text_tower(config, cls.name),
            vision=vision,
            preprocess=read_preprocess(image, video, CLIP),
            image_token=media_token(checkpoint, "image"),
            video_token=media_token(checkpoint, "video") if is_video else None,
            shortest_edge=shortest_edge,
            crop=crop,
            pad_square=False,
            pinpoints=read_pinpoints(config, vision.image_size),
            stride=int(config.get("spatial_pool_stride", 2)) if is_video else 0,
        )

    def vision_needs(self) -> Iterator[tuple[Need, str]]:
        yield from tower_needs(self.vision)
        yield from mlp_needs(self.vision.n_embd, self.text.n_embd)
        yield Need("newline", (self.text.n_embd,)), "v.image_newline"

    def metadata(self, writer: gguf.GGUFWriter) -> None:
        super().metadata(writer)
        writer.add_string("aim.family", self.name)
        writer.add_array("clip.vision.image_grid_pinpoints", [side for h, w in self.pinpoints for side in (w, h)])
        writer.add_string("clip.vision.mm_patch_merge_type", MERGE)
        if self.stride:
            writer.add_string("aim.video.pool", "average")
            writer.add_uint32("aim.video.pool_stride", self.stride)


@dataclass(frozen=True)
class LlavaNextMistral(LlavaNext):
    """The same beside a Mistral, whose prompts are its own."""

    chat_template = MISTRAL


def check_layout(config: Mapping[str, Any]) -> None:
    """One line for each variant that is not converted."""
    merge, pool = config.get("mm_patch_merge_type", MERGE), config.get("spatial_pool_mode", "average")
    ratio = config.get("image_aspect_ratio", "anyres")
    if is_original(config) and (merge != MERGE or ratio != "anyres"):
        raise Unsupported(f"LLaVA-NeXT with patch merge {merge!r} and pictures {ratio!r} is not supported")
    if architecture(config) in VIDEO and pool != "average":
        raise Unsupported(f"LLaVA-NeXT-Video with spatial_pool_mode {pool!r} is not supported ('average' is)")


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the language tower, in either layout. The authors' flat config names the whole model in its model_type."""
    if not is_original(config):
        return section(config, "text_config")
    kind = "mistral" if architecture(config) == "LlavaMistralForCausalLM" else "llama"
    return {**config, "model_type": kind}


def text_tower(config: Mapping[str, Any], family: str) -> TextSpec:
    """A Mistral without a window is a LLaMA with other defaults."""
    text = text_config(config)
    if text.get("model_type") == "mistral":
        text = {**MISTRAL_DEFAULTS, **text, "model_type": "llama"}
        window, n_ctx = text["sliding_window"], text["max_position_embeddings"]
        if window is not None and window < n_ctx:
            raise Unsupported(f"a Mistral with a sliding window of {window} tokens is not supported (none is)")
    return read_text(text, "llama", bool(config.get("tie_word_embeddings")), family)


def read_pinpoints(config: Mapping[str, Any], side: int) -> tuple[tuple[int, int], ...]:
    """Tile layouts as (height, width). The authors' code reads its list as (width, height)."""
    listed = config.get("image_grid_pinpoints") or [list(pair) for pair in PINPOINTS]
    if not isinstance(listed, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in listed):
        raise ConvertError(f"image_grid_pinpoints {listed!r} is no list of pairs such as [336, 672]")
    pairs = [(int(a), int(b)) for a, b in listed]
    if any(n <= 0 or n % side for pair in pairs for n in pair):
        raise ConvertError(f"image_grid_pinpoints {listed} are no multiples of the tower's {side} pixels")
    return tuple((b, a) if is_original(config) else (a, b) for a, b in pairs)
