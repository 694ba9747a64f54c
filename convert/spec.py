"""What a checkpoint is: its family, its towers, how it prepares pictures, what its prompts write for media."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint, section
from .errors import unsupported
from .preprocess import Preprocess, read_preprocess
from .towers import TextSpec, VisionSpec, read_text, read_vision


@dataclass(frozen=True)
class ModelSpec:
    """Everything but the weights."""

    family: str  # "llava_onevision" or "llava"
    original: bool  # the authors' own layout
    text: TextSpec
    vision: VisionSpec
    preprocess: Preprocess
    image_token: str
    video_token: str | None


def read_spec(checkpoint: Checkpoint, tower: Checkpoint | None) -> ModelSpec:
    """The spec of `checkpoint`; `tower` is the folder that --vision-tower names."""
    config = checkpoint.config
    family, original = identify(config)
    text = read_text(config if original else section(config, "text_config"), config, family)
    vision = read_vision(config, tower, family, original)
    onevision = family == "llava_onevision"
    return ModelSpec(
        family=family,
        original=original,
        text=text,
        vision=vision,
        preprocess=read_preprocess(checkpoint, tower, vision, family, original),
        image_token=media_token(checkpoint, "image"),
        video_token=media_token(checkpoint, "video") if onevision else None,
    )


def identify(config: Mapping[str, Any]) -> tuple[str, bool]:
    """(family, is it an original release)."""
    architectures = config.get("architectures") or []
    name = str(architectures[0]) if architectures else str(config.get("model_type"))
    match name:
        case "LlavaOnevisionForConditionalGeneration" | "llava_onevision":
            return "llava_onevision", False
        case "LlavaForConditionalGeneration" | "llava" if "text_config" in config:
            return "llava", False
        case "LlavaQwenForCausalLM" if "mm_vision_tower" in config:
            check_original_onevision(config)
            return "llava_onevision", True
        case "LlavaLlamaForCausalLM" if "mm_vision_tower" in config:
            if "unpad" in str(config.get("mm_patch_merge_type", "")):
                raise unsupported("LlavaLlamaForCausalLM with image tiles (LLaVA-1.6) is not supported")
            return "llava", True
    raise unsupported(f"architecture {name} is not supported")


def check_original_onevision(config: Mapping[str, Any]) -> None:
    merge = config.get("mm_patch_merge_type", "spatial_unpad")
    newline = config.get("mm_newline_position", "one_token")
    if merge != "spatial_unpad" or newline != "one_token":
        raise unsupported(f"LlavaQwenForCausalLM with patch merge {merge!r} and newlines {newline!r} is not supported")


def media_token(checkpoint: Checkpoint, kind: str) -> str:
    """What the chat template writes where a picture or a video goes."""
    for name in ("processor_config.json", "tokenizer_config.json"):
        token = checkpoint.json(name).get(f"{kind}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            return token
    return f"<{kind}>"
