"""The shapes of the two towers, read from their configs.

Knows transformers' configs (sparse ones too: what a file leaves out is the class default) and the flat configs of the
original releases. Knows nothing of tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint, section
from .defaults import KNOWN_TOWERS, ROPE_THETA, TEXT_DEFAULTS, VISION_DEFAULTS
from .errors import ConvertError, unsupported

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
