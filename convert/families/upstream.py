"""Families that llama.cpp's own converter knows: it writes their files, `../upstream.py` drives it.

One entry of UPSTREAM per family. What the files hold is upstream's, and behind it the numbers of the processors that
upstream leaves out, as `aim.` keys: without them the runtime takes those that the family was published with. Tensor
names are those of the published checkpoints; where transformers saves them under others today, `renames` brings them
back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..checkpoint import section
from ..errors import Unsupported
from .layouts import architecture


@dataclass(frozen=True)
class UpstreamFamily:
    """`architectures`: in config.json. `vision`, `text`: upstream's names of the classes that write each tower.

    `text` maps the language tower's model_type to a class: without an entry for a tower, the model is not supported.
    `sentencepiece`: the tokenizer is of that kind. `renames`: a pattern and its replacement in tensors' names.
    `keys`: a whole number or a flag for the mmproj, and where it stands: the first place that has one. A place is
    "image", "video" (a processor's JSON) or "config", and the way to a value in it; "way=word" is 1 where that word
    stands there, 0 elsewhere.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    vision: str
    text: Mapping[str, str]
    sentencepiece: bool = False
    renames: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text_class(self, config: Mapping[str, Any]) -> str:
        """Upstream's class for the language tower. Raises Unsupported."""
        inner = section(config, "text_config") or section(config, "llm_config")
        found = str(inner.get("model_type") or config.get("model_type"))
        if found not in self.text:
            raise Unsupported(f"{self.name} with a {found} language tower is not supported")
        return self.text[found]


EDGES = {"min": "shortest_edge", "max": "longest_edge"}
FILTERS: dict[str, tuple[str, ...]] = {
    "aim.vision.resample": ("image.resample",),
    "aim.video.resample": ("video.resample",),
}
PIXELS: dict[str, tuple[str, ...]] = {
    f"aim.{key}.{end}_pixels": (f"{part}.{end}_pixels", f"{part}.size.{edge}")
    for key, part in (("vision", "image"), ("video", "video"))
    for end, edge in EDGES.items()
} | FILTERS
SECONDS: dict[str, tuple[str, ...]] = {"aim.video.ids_per_second": ("config.vision_config.tokens_per_second",)}

PLAIN_TEXT = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}

UPSTREAM: tuple[UpstreamFamily, ...] = (
    UpstreamFamily(
        name="qwen2_vl",
        title="Qwen2-VL",
        architectures=("Qwen2VLForConditionalGeneration",),
        vision="Qwen2VLForConditionalGeneration",
        text=dict.fromkeys(("qwen2_vl", "qwen2_vl_text"), "Qwen2VLForConditionalGeneration"),
        keys=PIXELS,
    ),
    UpstreamFamily(
        name="qwen2_5_vl",
        title="Qwen2.5-VL",
        architectures=("Qwen2_5_VLForConditionalGeneration",),
        vision="Qwen2_5_VLForConditionalGeneration",
        text=dict.fromkeys(("qwen2_5_vl", "qwen2_5_vl_text"), "Qwen2_5_VLForConditionalGeneration"),
        keys=PIXELS | SECONDS,
    ),
    UpstreamFamily(
        name="qwen3_vl",
        title="Qwen3-VL",
        architectures=("Qwen3VLForConditionalGeneration",),
        vision="Qwen3VLForConditionalGeneration",
        text={"qwen3_vl_text": "Qwen3VLForConditionalGeneration"},
        keys=PIXELS,
    ),
    UpstreamFamily(
        name="qwen3_5",
        title="Qwen3.5",
        architectures=("Qwen3_5ForConditionalGeneration",),
        vision="Qwen3_5ForConditionalGeneration",
        text={"qwen3_5_text": "Qwen3_5ForConditionalGeneration"},
        keys=PIXELS,
    ),
    UpstreamFamily(
        name="smolvlm",
        title="SmolVLM, SmolVLM2 and Idefics3",
        architectures=("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration"),
        vision="SmolVLMForConditionalGeneration",
        text=PLAIN_TEXT,
        keys=FILTERS
        | {
            "aim.vision.do_image_splitting": ("image.do_image_splitting",),
            "aim.video.longest_edge": (
                "video.video_sampling.video_size.longest_edge",
                "image.video_sampling.video_size.longest_edge",
                "video.size.longest_edge",
            ),
        },
    ),
    UpstreamFamily(
        name="internvl",
        title="InternVL3 and 3.5",
        architectures=("InternVLForConditionalGeneration", "InternVLChatModel"),
        vision="InternVisionModel",
        text=PLAIN_TEXT,
        renames={r"^(vision_tower|multi_modal_projector)\.": r"model.\1."},
        keys=FILTERS | {"aim.vision.min_tiles": ("image.min_patches",), "aim.vision.max_tiles": ("image.max_patches",)},
    ),
    UpstreamFamily(
        name="gemma3",
        title="Gemma 3",
        architectures=("Gemma3ForConditionalGeneration",),
        vision="Gemma3ForConditionalGeneration",
        text={"gemma3_text": "Gemma3ForConditionalGeneration", "gemma3": "Gemma3ForConditionalGeneration"},
        sentencepiece=True,
        renames={r"^(?:model\.)?vision_tower\.(?!vision_model\.)": "vision_tower.vision_model."},
        keys=FILTERS,
    ),
    UpstreamFamily(
        name="gemma4",
        title="Gemma 4",
        architectures=("Gemma4ForConditionalGeneration",),
        vision="Gemma4ForConditionalGeneration",
        text={"gemma4_text": "Gemma4ForConditionalGeneration"},
        keys=FILTERS
        | {
            "aim.vision.max_tokens": ("image.max_soft_tokens",),
            "aim.video.max_tokens": ("video.max_soft_tokens",),
            "aim.vision.both_ways": ("config.text_config.use_bidirectional_attention=vision",),
        },
    ),
)


def upstream_family(config: Mapping[str, Any]) -> UpstreamFamily | None:
    """The family of a checkpoint with this config.json, None where upstream's converter is not driven for it."""
    found = [family for family in UPSTREAM if architecture(config) in family.architectures]
    return found[0] if found else None
