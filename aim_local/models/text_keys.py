"""Keys in the head of a language model that ask for what is not done here, so that they would change nothing.

What this program runs writes text: a causal decoder, which pools nothing. And a key that llama.cpp reads for other
architectures alone is read by nobody in one of ours.
ref: llama.cpp, src/llama-arch.cpp (LLM_KV_NAMES) and src/models/ (load_arch_hparams); conversion/ for what its
converter writes
"""

from __future__ import annotations

from typing import Any

from ..store.gguf_header import ArrayInfo, GgufHeader
from .head import damaged
from .text_sizes import FAMILIES, MROPE

_TAKE_ANOTHER = "Take a model that answers, `aim-local models --known` lists some"
# key -> the one value of a model that writes text
_OF_DECODERS = {"attention.causal": True, "pooling_type": 0, "classifier.pooling_type": 0}
_LABELS = "classifier.output_labels"
_DEEPSTACK = ("qwen3vl", "qwen3vlmoe")
_WINDOWS = ("gemma3", "gemma4")
_RECURRENT = ("qwen35", "qwen35moe")
# key -> which of our families' architectures have such a thing
_FOR: dict[str, tuple[str, ...]] = {
    "rope.dimension_sections": MROPE,
    "n_deepstack_layers": _DEEPSTACK,
    **dict.fromkeys(("attention.max_alibi_bias", "attention.clamp_kqv", "attention.scale"), ()),
    **dict.fromkeys(("logit_scale", "embedding_scale", "residual_scale"), ()),
    **dict.fromkeys(("attn_logit_softcapping", "router_logit_softcapping"), ()),
    "final_logit_softcapping": _WINDOWS,
    **dict.fromkeys(("attention.sliding_window", "attention.sliding_window_pattern"), _WINDOWS),
    **dict.fromkeys((f"attention.{what}_length_swa" for what in ("key", "value")), _WINDOWS),
    **dict.fromkeys(("rope.dimension_count_swa", "rope.freq_base_swa"), _WINDOWS),
    **dict.fromkeys(("attention.shared_kv_layers", "embedding_length_per_layer_input"), ("gemma4",)),
    **dict.fromkeys(("attention.recurrent_layers", "full_attention_interval", "nextn_predict_layers"), _RECURRENT),
    **dict.fromkeys((f"ssm.{what}" for what in ("conv_kernel", "state_size", "inner_size", "group_count")), _RECURRENT),
    "ssm.time_step_rank": _RECURRENT,
    "expert_count": ("llama", "qwen3vlmoe", "qwen35moe", "gemma4"),
}


def check_text_keys(header: GgufHeader) -> None:
    """Raises ModelError for a key that asks for what is not done. Behind `check_rules`."""
    values, architecture = header.metadata, header.architecture
    for name, only in _OF_DECODERS.items():
        key = f"{architecture}.{name}"
        if values.get(key, only) != only:
            needed = f"it has to be {only}, as in models that write text from left to right; others are not run here"
            raise damaged(header, key, needed, _TAKE_ANOTHER)
    if f"{architecture}.{_LABELS}" in values:
        raise damaged(header, f"{architecture}.{_LABELS}", "models that sort texts are not run here", _TAKE_ANOTHER)
    if architecture not in FAMILIES:
        return
    for name, architectures in _FOR.items():
        key = f"{architecture}.{name}"
        if architecture not in architectures and not _is_none(values.get(key, 0), is_scale=name.endswith("_scale")):
            raise damaged(header, key, f"models of the architecture {architecture!r} have no such value")


def _is_none(value: Any, *, is_scale: bool) -> bool:
    """Whether a value asks for nothing: 0, or a scale of 1, as converters may write it."""
    if isinstance(value, ArrayInfo):
        return False
    values = value if isinstance(value, tuple) else (value,)
    return all(v == 0 or (is_scale and v == 1) for v in values)
