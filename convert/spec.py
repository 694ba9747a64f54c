"""What a checkpoint is, read from its config files: the shapes of both towers and how pictures are prepared.

Knows transformers' configs (sparse ones too: what a file leaves out is the class default) and the flat configs of the
original releases. Knows nothing of tensors.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint
from .errors import ConvertError

SUPPORTED = "LLaVA-OneVision (Qwen2 with SigLIP) and LLaVA-1.5 (LLaMA or Vicuna with CLIP)"

# class defaults of transformers for what a sparse config leaves out; tests/test_convert.py compares them
TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2": {"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6},
    "llama": {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "num_key_value_heads": None, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
}  # fmt: skip
VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "siglip_vision_model": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                                "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    "clip_vision_model": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                              "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}  # fmt: skip
ROPE_THETA = 10000.0

# towers that the original releases name without describing them
KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "siglip-so400m-patch14-384": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                                      "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14},
    "clip-vit-large-patch14-336": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                                       "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14},
    "clip-vit-large-patch14": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                                   "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224, "patch_size": 14},
}  # fmt: skip

ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "gelu": "gelu", "quick_gelu": "quick_gelu", "silu": "silu"}


@dataclass(frozen=True)
class Rope:
    """Rotary positions: base, and the stretching of long-context variants ("linear" or "yarn", else None)."""

    theta: float
    kind: str | None = None
    factor: float = 1.0
    original_ctx: int | None = None


@dataclass(frozen=True)
class TextSpec:
    """The language tower. `arch` is llama.cpp's name of it."""

    arch: str
    vocab_size: int
    n_embd: int
    n_ff: int
    n_layer: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ctx: int
    rms_eps: float
    rope: Rope
    tied: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool

    def __post_init__(self) -> None:
        if self.n_head % self.n_head_kv:
            raise ConvertError(
                f"config.json: {self.n_head} attention heads cannot share {self.n_head_kv} key-value heads"
            )


@dataclass(frozen=True)
class VisionSpec:
    """The vision tower. `n_layer` layers are run: those up to the hidden state that the projector reads."""

    kind: str  # "siglip" or "clip"
    image_size: int
    patch_size: int
    n_embd: int
    n_ff: int
    n_layer: int
    n_layer_full: int
    n_head: int
    eps: float
    activation: str

    @property
    def n_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2  # one row of pixels may be left over: 384 = 27 x 14 + 6


@dataclass(frozen=True)
class Preprocess:
    """From pixels to the tower's input, as the checkpoint's image processor does it. `resample` is PIL's number."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: int
    video_resample: int
    n_frames: int
    shortest_edge: int | None  # None: both sides are resized to the tower's size
    crop: bool
    pad_square: bool
    pinpoints: tuple[tuple[int, int], ...]  # (height, width)
    max_tiles: int
    default: bool  # the checkpoint names no processor: these are the tower's published numbers


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
        image_token="<image>",
        video_token="<video>" if onevision else None,
    )


def section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def unsupported(what: str) -> ConvertError:
    return ConvertError(f"{what}; supported are {SUPPORTED}")


def identify(config: Mapping[str, Any]) -> tuple[str, bool]:
    """(family, is it an original release)."""
    architectures = config.get("architectures") or []
    name = str(architectures[0]) if architectures else str(config.get("model_type"))
    match name:
        case "LlavaOnevisionForConditionalGeneration" | "llava_onevision":
            return "llava_onevision", False
        case "LlavaForConditionalGeneration":
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


def read_text(text: Mapping[str, Any], config: Mapping[str, Any], family: str) -> TextSpec:
    want = "qwen2" if family == "llava_onevision" else "llama"
    arch = str(text.get("model_type", want)) if "text_config" in config else want
    if arch != want:
        raise unsupported(f"{family} with a {arch} language tower is not supported")
    c = {**TEXT_DEFAULTS[arch], **{k: v for k, v in text.items() if v is not None}}
    if c.get("use_sliding_window"):
        raise unsupported("sliding-window attention (use_sliding_window) is not supported")
    n_head = int(c["num_attention_heads"])
    return TextSpec(
        arch=arch,
        vocab_size=int(c["vocab_size"]),
        n_embd=int(c["hidden_size"]),
        n_ff=int(c["intermediate_size"]),
        n_layer=int(c["num_hidden_layers"]),
        n_head=n_head,
        n_head_kv=int(c["num_key_value_heads"] or n_head),
        head_dim=int(c.get("head_dim") or c["hidden_size"] // n_head),
        n_ctx=int(c["max_position_embeddings"]),
        rms_eps=float(c["rms_norm_eps"]),
        rope=read_rope(c),
        tied=bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings")),  # transformers: either
        qkv_bias=arch == "qwen2" or bool(c.get("attention_bias")),
        o_bias=arch == "llama" and bool(c.get("attention_bias")),
        mlp_bias=bool(c.get("mlp_bias")),
    )


def read_rope(c: Mapping[str, Any]) -> Rope:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
    params = c.get("rope_parameters") or c.get("rope_scaling") or {}
    theta = float(params.get("rope_theta") or c.get("rope_theta") or ROPE_THETA)
    kind = params.get("rope_type") or params.get("type") or "default"
    match kind:
        case "default":
            return Rope(theta)
        case "linear" | "yarn":
            original = params.get("original_max_position_embeddings")
            return Rope(theta, kind, float(params["factor"]), int(original) if original else None)
    raise unsupported(f"rotary positions of type {kind!r} are not supported (default, linear and yarn are)")


def tower_config(config: Mapping[str, Any], tower: Checkpoint | None, original: bool) -> dict[str, Any]:
    """The vision tower's config: inside the checkpoint's, in the tower's own folder, or known by name."""
    if section(config, "vision_config"):
        return section(config, "vision_config")
    if tower is not None:
        return section(tower.config, "vision_config") or tower.config
    if not original:
        return {}
    name = str(config.get("mm_vision_tower", ""))
    if (known := KNOWN_TOWERS.get(name.rstrip("/").rsplit("/", 1)[-1])) is not None:
        return known
    raise ConvertError(
        f"vision tower {name!r} is named but not described; download it and pass its folder as --vision-tower"
    )


def read_vision(config: Mapping[str, Any], tower: Checkpoint | None, family: str, original: bool) -> VisionSpec:
    c = tower_config(config, tower, original)
    want = "siglip_vision_model" if family == "llava_onevision" else "clip_vision_model"
    kind = {"siglip": "siglip_vision_model", "clip": "clip_vision_model"}.get(
        str(c.get("model_type")), c.get("model_type", want)
    )
    if kind != want:
        raise unsupported(f"{family} with a {kind} vision tower is not supported")
    c = {**VISION_DEFAULTS[want], **{k: v for k, v in c.items() if v is not None}}
    if c["hidden_act"] not in ACTIVATIONS:
        raise unsupported(f"vision activation {c['hidden_act']!r} is not supported ({', '.join(ACTIVATIONS)} are)")
    n_full = int(c["num_hidden_layers"])
    return VisionSpec(
        kind=want.split("_")[0],
        image_size=int(c["image_size"]),
        patch_size=int(c["patch_size"]),
        n_embd=int(c["hidden_size"]),
        n_ff=int(c["intermediate_size"]),
        n_layer=n_layers_run(config, n_full, family, original),
        n_layer_full=n_full,
        n_head=int(c["num_attention_heads"]),
        eps=float(c["layer_norm_eps"]),
        activation=ACTIVATIONS[c["hidden_act"]],
    )


def n_layers_run(config: Mapping[str, Any], n_full: int, family: str, original: bool) -> int:
    """Layers before the hidden state that is read. State 0 is the embedding, state i the output of layer i.

    No norm follows: both towers hand out hidden states from before post_layernorm (transformers
    `capture_outputs(tie_last_hidden_states=False)` in modeling_siglip.py and modeling_clip.py).
    """
    if original:
        layer, strategy = config.get("mm_vision_select_layer", -2), config.get("mm_vision_select_feature", "patch")
        strategies = ("patch",)
    else:
        layer = config.get("vision_feature_layer", -1 if family == "llava_onevision" else -2)
        want = "full" if family == "llava_onevision" else "default"
        strategy, strategies = config.get("vision_feature_select_strategy", want), (want,)
    if strategy not in strategies:
        raise unsupported(f"vision feature selection {strategy!r} is not supported ({strategies[0]!r} is)")
    if isinstance(layer, list) and len(layer) == 1:
        layer = layer[0]
    if not isinstance(layer, int):
        raise unsupported(f"features of several vision layers ({layer}) are not supported")
    n_run = layer if layer >= 0 else n_full + 1 + layer
    if not 0 < n_run <= n_full:
        raise ConvertError(
            f"config.json selects vision layer {layer} of a tower with {n_full} layers; it must be one of them"
        )
    return n_run


# --- pictures -------------------------------------------------------------------------------------------------------

BICUBIC = 3
N_FRAMES = 32
SIGLIP_NUMBERS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP_NUMBERS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def read_preprocess(
    checkpoint: Checkpoint, tower: Checkpoint | None, vision: VisionSpec, family: str, original: bool
) -> Preprocess:
    """processor_config.json (new), preprocessor_config.json (old), or the tower folder's own."""
    processor = checkpoint.json("processor_config.json")
    image = section(processor, "image_processor") or checkpoint.json("preprocessor_config.json")
    if not image and tower is not None:
        image = tower.json("preprocessor_config.json")
    video = section(processor, "video_processor") or checkpoint.json("video_preprocessor_config.json")
    mean, std = SIGLIP_NUMBERS if vision.kind == "siglip" else CLIP_NUMBERS
    resample = int(image.get("resample", BICUBIC))
    shortest, crop = read_size(image, vision, family)
    onevision = family == "llava_onevision"
    return Preprocess(
        mean=triple(image.get("image_mean", mean)),
        std=triple(image.get("image_std", std)),
        resample=resample,
        video_resample=int(video.get("resample", resample)),
        n_frames=int(video.get("num_frames") or N_FRAMES),
        shortest_edge=shortest,
        crop=crop,
        pad_square=bool(image.get("do_pad")) or (original and checkpoint.config.get("image_aspect_ratio") == "pad"),
        pinpoints=read_pinpoints(checkpoint.config, vision.image_size, original) if onevision else (),
        max_tiles=read_max_tiles(checkpoint.config, original) if onevision else 1,
        default=not image,
    )


def triple(values: Any) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ConvertError(f"the image processor's mean or std is {values!r}; three numbers are expected")
    return (float(values[0]), float(values[1]), float(values[2]))


def read_size(image: Mapping[str, Any], vision: VisionSpec, family: str) -> tuple[int | None, bool]:
    """(shortest edge or None for both sides, centre crop). The picture must end at the tower's size."""
    side = vision.image_size
    clip = family == "llava"
    size = image.get("size", {"shortest_edge": side} if clip else {"height": side, "width": side})
    crop_size = image.get("crop_size") or side
    crop = clip and bool(image.get("do_center_crop", True))
    size = {"shortest_edge": size} if isinstance(size, int) else size
    shortest = size.get("shortest_edge")
    resized = {shortest} if shortest else {size.get("height"), size.get("width")}
    cropped = {crop_size} if isinstance(crop_size, int) else {crop_size.get("height"), crop_size.get("width")}
    final = cropped if crop else resized
    if final != {side}:
        got = "x".join(str(s) for s in sorted(final, key=str))
        raise ConvertError(
            f"the image processor makes pictures of {got} pixels, the vision tower takes {side}; mend one config"
        )
    return (int(shortest) if clip and shortest else None), crop


def read_pinpoints(config: Mapping[str, Any], side: int, original: bool) -> tuple[tuple[int, int], ...]:
    """Tile layouts as (height, width). The original code reads its list as (width, height), and also knows "(1x1),...,(6x6)"."""
    listed = config.get("image_grid_pinpoints")
    if listed is None:
        return tuple((side * h, side * w) for h in range(1, 7) for w in range(1, 7))
    if isinstance(listed, str):
        ends = [int(n) for n in re.findall(r"\d+", listed)]
        if len(ends) < 4:
            raise ConvertError(f"image_grid_pinpoints {listed!r} is not of the form '(1x1),...,(6x6)'")
        return tuple((side * b, side * a) for a in range(ends[0], ends[-2] + 1) for b in range(ends[1], ends[-1] + 1))
    pairs = [(int(a), int(b)) for a, b in listed]
    return tuple((b, a) if original else (a, b) for a, b in pairs)


def read_max_tiles(config: Mapping[str, Any], original: bool) -> int:
    """9 of "anyres_max_9"."""
    ratio = str(config.get("image_aspect_ratio" if original else "vision_aspect_ratio", "anyres_max_9"))
    found = re.fullmatch(r"anyres_max_(\d+)", ratio)
    if not found:
        raise unsupported(f"image aspect ratio {ratio!r} is not supported ('anyres_max_9' is)")
    return int(found[1])
