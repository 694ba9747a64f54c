"""Tiny random text models, as transformers models and as GGUF of the same weights.

Those with several rotary ids (qwen2vl, qwen3vl) are Qwen2 and Qwen3 in transformers, whose config says what turns what.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import torchvision_ops  # noqa: F401  before transformers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class TextShape:
    arch: str = "qwen2"  # or "llama", "qwen3", "qwen2vl", "qwen3vl"
    n_layer: int = 4
    n_head: int = 4
    n_kv: int = 2
    d_head: int = 16
    n_ff: int = 96
    n_vocab: int = 128
    n_deep: int = 0  # first layers that add features of the vision tower, qwen3vl
    seed: int = 0

    @property
    def n_embd(self) -> int:
        return self.n_head * self.d_head

    @property
    def sections(self) -> tuple[int, int, int] | None:
        """Pairs of a head's numbers that are turned by time, row and column; None: all by the position.

        As many as there are where they take turns: llama.cpp turns by nothing what is left behind such sections, and
        transformers by time (of the published 24, 20 and 20 two pairs that hardly turn).
        """
        n = self.d_head // 2
        n_row, n_col = (n + 1) // 3, n // 3
        return (n - n_row - n_col, n_row, n_col) if self.arch.endswith("vl") else None

    @property
    def eps(self) -> float:
        """Of the norms. llama.cpp at this version reads none for qwen2vl, and has 0 there."""
        return 0.0 if self.arch == "qwen2vl" else 1e-6


def make_model(shape: TextShape) -> Any:
    """A transformers model with attention logits of about one: at temperature 0.1 they rank and do not underflow."""
    torch.manual_seed(shape.seed)
    n_embd = shape.n_embd
    options = {
        "vocab_size": shape.n_vocab, "hidden_size": n_embd, "head_dim": shape.d_head, "intermediate_size": shape.n_ff,
        "num_hidden_layers": shape.n_layer, "num_attention_heads": shape.n_head, "num_key_value_heads": shape.n_kv,
        "tie_word_embeddings": False, "rms_norm_eps": shape.eps, "initializer_range": n_embd**-0.5,
    }  # fmt: skip
    config, made = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }[shape.arch.removesuffix("vl")]
    model = made(config(**options))
    if shape.sections:
        model.config.rope_parameters |= {
            "mrope_section": list(shape.sections), "mrope_interleaved": shape.arch == "qwen3vl"
        }  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # transformers starts these at 0 and 1, which would hide a mistake
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def write_gguf(model: Any, shape: TextShape, path: Path, weight_type: Any = gguf.GGMLQuantizationType.F32) -> None:
    w = gguf.GGUFWriter(str(path), shape.arch)
    w.add_block_count(shape.n_layer)
    w.add_context_length(32768)
    w.add_embedding_length(shape.n_embd)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_head_count_kv(shape.n_kv)
    w.add_rope_dimension_count(shape.d_head)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(10000.0)
    if shape.arch.startswith("qwen3"):
        w.add_key_length(shape.d_head)
        w.add_value_length(shape.d_head)
    if shape.sections:
        w.add_rope_dimension_sections([*shape.sections, 0])
    if shape.arch == "qwen3vl":
        w.add_uint32("qwen3vl.n_deepstack_layers", shape.n_deep)
    w.add_tokenizer_model("no_vocab")
    w.add_vocab_size(shape.n_vocab)
    for name, value in model.state_dict().items():
        array = value.float().numpy()
        if shape.arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            array = _interleave(array, shape.n_head if ".q_proj." in name else shape.n_kv)
        if array.ndim == 2 and weight_type != gguf.GGMLQuantizationType.F32:
            w.add_tensor(gguf_name(name), gguf.quants.quantize(array, weight_type), raw_dtype=weight_type)
        else:
            w.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        il, part = stem.removeprefix("model.layers.").split(".", 1)
        return f"blk.{il}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def _interleave(w: np.ndarray[Any, Any], n_head: int) -> np.ndarray[Any, Any]:
    """llama.cpp's llama rotates neighbouring pairs, transformers the two halves of a head."""
    return np.ascontiguousarray(w.reshape(n_head, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape))
