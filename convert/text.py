"""The language tower: its shape, which tensors it must have, under which names llama.cpp reads them, its metadata.

Covers the architectures qwen2 and llama. Knows transformers' configs, sparse ones too: what a file leaves out is the
class default (tests/test_convert_configs.py holds those against transformers). Tensor names come from gguf's map; the
shapes are what the config promises.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from .checkpoint import TensorRef
from .errors import ConvertError, Unsupported
from .plan import Need, Planned, Transform, fulfil
from .types import FILE_TYPES, is_quantized, text_type

ARCHS = {"qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}
ROPE_THETA = 10000.0
TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
    },
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,  # as many as attention heads
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    },
}


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


# --- configs ----------------------------------------------------------------------------------------------------------


def read_text(text: Mapping[str, Any], arch: str, tied: bool, family: str) -> TextSpec:
    """The tower that the config `text` describes, which must be of `arch`. `tied`: what the whole model's config says.

    transformers ties the output table to the embeddings where either config says so.
    """
    found = str(text.get("model_type", arch))
    if found != arch:
        raise Unsupported(f"{family} with a {found} language tower is not supported")
    c = {**TEXT_DEFAULTS[arch], **{k: v for k, v in text.items() if v is not None}}
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
        tied=tied or bool(text.get("tie_word_embeddings")),
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
    raise Unsupported(f"rotary positions of type {kind!r} are not supported (default, linear and yarn are)")


# --- tensors ----------------------------------------------------------------------------------------------------------


def text_needs(spec: TextSpec) -> Iterator[Need]:
    """Every tensor of the tower: our name, shape (PyTorch order)."""
    d, ff, q, kv = spec.n_embd, spec.n_ff, spec.n_head * spec.head_dim, spec.n_head_kv * spec.head_dim
    yield Need("text.embed_tokens.weight", (spec.vocab_size, d))
    for il in range(spec.n_layer):
        at = f"text.layers.{il}."
        yield Need(at + "input_layernorm.weight", (d,))
        for name, shape, bias in (
            ("self_attn.q_proj", (q, d), spec.qkv_bias),
            ("self_attn.k_proj", (kv, d), spec.qkv_bias),
            ("self_attn.v_proj", (kv, d), spec.qkv_bias),
            ("self_attn.o_proj", (d, q), spec.o_bias),
            ("mlp.gate_proj", (ff, d), spec.mlp_bias),
            ("mlp.up_proj", (ff, d), spec.mlp_bias),
            ("mlp.down_proj", (d, ff), spec.mlp_bias),
        ):
            yield Need(f"{at}{name}.weight", shape)
            if bias:
                yield Need(f"{at}{name}.bias", shape[:1])
        yield Need(at + "post_attention_layernorm.weight", (d,))
    yield Need("text.norm.weight", (d,))
    if not spec.tied:
        yield Need("text.lm_head.weight", (spec.vocab_size, d))


def plan_text(spec: TextSpec, tensors: Mapping[str, TensorRef], wanted: gguf.GGMLQuantizationType) -> list[Planned]:
    """What to write for the tower, in order. Raises ConvertError for missing and misshapen tensors."""
    names = gguf.get_tensor_name_map(ARCHS[spec.arch], spec.n_layer)
    planned = []
    for need, ref in fulfil(list(text_needs(spec)), tensors):
        ours = need.name.removeprefix("text.")
        name = names.get_name(
            ours if ours.startswith("lm_head") else f"model.{ours}", try_suffixes=(".weight", ".bias")
        )
        assert name is not None, need.name
        transform, group = rope_order(spec, need.name)
        planned.append(Planned(name, ref, text_type(name, ref.shape, wanted), transform, group))
    return planned


def rope_order(spec: TextSpec, name: str) -> tuple[Transform | None, int]:
    """llama.cpp's llama rotates neighbouring pairs, transformers rotates halves: q and k rows change places.

    [head, 2, head_dim / 2] -> [head, head_dim / 2, 2]; qwen2 rotates halves in both.
    """
    if spec.arch != "llama" or not any(part in name for part in ("q_proj", "k_proj")):
        return None, 1
    head_dim = spec.head_dim

    def interleave(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])  # [heads, 2, head_dim / 2, ...]
        return halves.swapaxes(1, 2).reshape(rows.shape)

    return interleave, head_dim


# --- metadata ---------------------------------------------------------------------------------------------------------


def text_metadata(writer: gguf.GGUFWriter, spec: TextSpec, name: str, wanted: gguf.GGMLQuantizationType) -> None:
    """All keys but the tokenizer's."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_block_count(spec.n_layer)
    writer.add_context_length(spec.n_ctx)
    writer.add_embedding_length(spec.n_embd)
    writer.add_feed_forward_length(spec.n_ff)
    writer.add_head_count(spec.n_head)
    writer.add_head_count_kv(spec.n_head_kv)
    if spec.head_dim != spec.n_embd // spec.n_head:
        writer.add_key_length(spec.head_dim)
        writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(spec.rms_eps)
    rope_metadata(writer, spec)
    writer.add_vocab_size(spec.vocab_size)
    writer.add_file_type(FILE_TYPES[wanted])
    if is_quantized(wanted):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def rope_metadata(writer: gguf.GGUFWriter, spec: TextSpec) -> None:
    rope = spec.rope
    writer.add_rope_freq_base(rope.theta)
    if spec.arch == "llama":
        writer.add_rope_dimension_count(spec.head_dim)
    if rope.kind:
        kinds = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
        writer.add_rope_scaling_type(kinds[rope.kind])
        writer.add_rope_scaling_factor(rope.factor)
        if rope.kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope.original_ctx or spec.n_ctx)
