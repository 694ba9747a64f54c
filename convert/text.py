"""The language tower: which tensors it must have, under which names llama.cpp reads them, and its metadata.

Covers qwen2 and llama. Names come from gguf's map; the shapes are what the config promises.
"""

from collections.abc import Iterator, Mapping

import gguf
import numpy as np
import numpy.typing as npt

from .checkpoint import TensorRef
from .plan import Need, Planned, Transform, fulfil
from .towers import TextSpec
from .types import FILE_TYPES, is_quantized, text_type

ARCHS = {"qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}


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
