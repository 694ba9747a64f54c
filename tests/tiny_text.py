"""Tiny random Qwen2 and Llama text models, as transformers models and as GGUF of the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import torchvision_ops  # noqa: F401  (before transformers, for those who use this without pytest)
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

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
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class TextShape:
    arch: str = "qwen2"  # or "llama"
    n_layer: int = 4
    n_head: int = 4
    n_kv: int = 2
    d_head: int = 16
    n_ff: int = 96
    n_vocab: int = 128
    seed: int = 0


def make_model(shape: TextShape) -> Any:
    """A transformers model with attention logits of about one: at temperature 0.1 they rank and do not underflow."""
    torch.manual_seed(shape.seed)
    n_embd = shape.n_head * shape.d_head
    options = {
        "vocab_size": shape.n_vocab, "hidden_size": n_embd, "intermediate_size": shape.n_ff,
        "num_hidden_layers": shape.n_layer, "num_attention_heads": shape.n_head, "num_key_value_heads": shape.n_kv,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "initializer_range": n_embd**-0.5,
    }  # fmt: skip
    is_qwen2 = shape.arch == "qwen2"
    model = Qwen2ForCausalLM(Qwen2Config(**options)) if is_qwen2 else LlamaForCausalLM(LlamaConfig(**options))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # transformers starts these at 0 and 1, which would hide a mistake
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def write_gguf(model: Any, shape: TextShape, path: Path, weight_type: Any = gguf.GGMLQuantizationType.F32) -> None:
    w = gguf.GGUFWriter(str(path), shape.arch)
    w.add_block_count(shape.n_layer)
    w.add_context_length(32768)
    w.add_embedding_length(shape.n_head * shape.d_head)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_head_count_kv(shape.n_kv)
    w.add_rope_dimension_count(shape.d_head)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(10000.0)
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
