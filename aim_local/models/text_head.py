"""What may stand in the head of a language model: of which kind a value is, and between which limits.

llama.cpp refuses a value of another kind than it reads, and computes with any number: an epsilon of -1 ends the
process, a rope base of 0 makes every answer nonsense. How values fit each other and the weights: text_sizes.py; which
ask for what is not done: text_keys.py. Other shapes of weights are llama.cpp's own affair, which checks each.
ref: llama.cpp, src/llama-arch.cpp (LLM_KV_NAMES) and src/llama-vocab.cpp (llama_vocab::impl::load)
"""

from __future__ import annotations

import math

from ..store.gguf_header import ArrayInfo, GgufHeader
from .head import BOOL, MANY, TEXT, WHOLE, Rule, check_biases, check_rules, check_together, check_types, damaged
from .special_tokens import check_special_tokens
from .text_keys import check_text_keys
from .text_sizes import check_text_sizes
from .vocabulary import MERGES, MODEL, SCORES, SPLITS, TOKENS, TYPES, WITHOUT

_STRETCH = Rule(("float32",), 0.01, 1e6, zero=True)  # of positions; 0: none
_EPSILON, _FACTOR = Rule(("float32",), 0, 0.1), Rule(("float32",), 0, 1e6)


def _number(least: int = 0, most: int = (1 << 31) - 1) -> Rule:
    return Rule(WHOLE, least, most)


def _by_layer(most: int) -> Rule:
    """One number for all layers, or one each."""
    return Rule((*WHOLE, *MANY), 0, most)


_WIDTH = 1 << 20
_OF_ARCHITECTURE = {
    "block_count": _number(1, 1000),
    "context_length": _number(1),
    "embedding_length": _number(1, _WIDTH),
    "embedding_length_out": _number(1, _WIDTH),
    "vocab_size": _number(1, 1 << 24),
    "feed_forward_length": _by_layer(1 << 24),
    "leading_dense_block_count": _number(0, 1000),
    "n_deepstack_layers": _number(0, 1000),
    "full_attention_interval": _number(1, 1000),
    **dict.fromkeys((f"expert_{what}" for what in ("count", "group_count", "group_used_count")), _number(0, 1 << 16)),
    "nextn_predict_layers": _number(0, 1000),
    "expert_used_count": _by_layer(1 << 16),
    "attention.head_count": _by_layer(1 << 16),
    "attention.head_count_kv": _by_layer(1 << 16),
    **dict.fromkeys(
        (f"attention.{what}_length{end}" for what in ("key", "value") for end in ("", "_swa", "_mla")),
        _by_layer(1 << 16),
    ),
    **dict.fromkeys((f"attention.{kind}_epsilon" for kind in ("layer_norm", "layer_norm_rms", "group_norm")), _EPSILON),
    "attention.sliding_window": _number(),
    "attention.sliding_window_pattern": _by_layer(1000),
    "attention.shared_kv_layers": _number(0, 1000),
    "attention.recurrent_layers": _by_layer(1),
    "rope.freq_base": Rule(("float32",), 1, 1e12),
    "rope.freq_base_swa": Rule(("float32",), 1, 1e12),
    "rope.dimension_count": _by_layer(1 << 16),
    "rope.dimension_count_swa": _by_layer(1 << 16),
    "rope.dimension_sections": Rule(MANY, 0, 1 << 16),
    "rope.scale_linear": _STRETCH,
    "rope.scaling.factor": _STRETCH,
    "rope.scaling.type": Rule(("text",), words=("none", "linear", "yarn", "longrope")),
    "rope.scaling.original_context_length": _number(1),
    **dict.fromkeys(("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"), Rule(("float32",), 0.01, 100)),
    "attention.causal": BOOL,
    **dict.fromkeys(("pooling_type", "classifier.pooling_type"), _number(0, 4)),
    "attention.max_alibi_bias": _FACTOR,
    "attn_logit_softcapping": _FACTOR,
    "final_logit_softcapping": _FACTOR,
    "logit_scale": _FACTOR,
    **dict.fromkeys(
        (f"ssm.{what}" for what in ("state_size", "inner_size", "group_count", "time_step_rank")), _number(0, 1 << 24)
    ),
    "ssm.conv_kernel": _number(0, 1 << 10),
}
_TEXTS = Rule(("array of text",))
_TEMPLATE = "tokenizer.chat_template"
_EACH = {SCORES: "array of float32", TYPES: "array of int32"}
RULES = {
    **dict.fromkeys(("general.architecture", "general.name", "general.basename"), TEXT),
    "general.type": Rule(("text",), words=("model",)),
    "general.file_type": _number(0, 1 << 16),
    "general.quantization_version": _number(),
    MODEL: TEXT,
    SPLITS: TEXT,
    TOKENS: _TEXTS,
    MERGES: _TEXTS,
    _TEMPLATE: TEXT,
    "tokenizer.chat_templates": _TEXTS,
    **dict.fromkeys((f"tokenizer.ggml.add_{what}" for what in ("bos_token", "eos_token", "space_prefix")), BOOL),
    "aim.origin": TEXT,
}
_BIASED = ("qwen2", "qwen2vl", "qwen2moe")  # in queries, keys and values, always
_SCORED, _UNMERGED = ("llama", "t5"), ("bert", "t5", "rwkv", "plamo2")  # that need scores; that merge no pairs


def check_text_head(header: GgufHeader) -> None:
    """Raises ModelError for a head that names what cannot be."""
    own = {f"{header.architecture}.{key}": rule for key, rule in _OF_ARCHITECTURE.items()}
    check_rules(header, RULES | own)
    for key, value in header.metadata.items():
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(v, float) and (math.isnan(v) or (math.isinf(v) and ".rope." in key)) for v in values):
            raise damaged(header, key, "it has to be a number")
    if not header.metadata.get(_TEMPLATE, _TEMPLATE).strip():
        raise damaged(header, _TEMPLATE, "it has to be text that is not blank")
    check_text_keys(header)
    check_text_sizes(header)
    _check_vocabulary(header)
    check_types(header)
    check_biases(header)
    check_together(header, "blk.", ("attn_q", "attn_k", "attn_v"), needed=header.architecture in _BIASED)


def _check_vocabulary(header: GgufHeader) -> None:
    """Each token has one score and one type, where they are given, and special tokens are among them."""
    values = header.metadata
    model = values.get(MODEL)
    if model in WITHOUT:
        return
    if (model in _SCORED and SCORES not in values) or (model in _UNMERGED and MERGES in values):
        why = f"which has no {SCORES}" if SCORES not in values and model in _SCORED else f"which has {MERGES}"
        raise damaged(header, MODEL, f"it does not fit the vocabulary, {why}")
    tokens = values.get(TOKENS)
    if not isinstance(tokens, ArrayInfo):
        raise damaged(header, TOKENS, "it has to be an array of text")
    for key, kind in _EACH.items():
        found = values.get(key)
        n = found.length if isinstance(found, ArrayInfo) else len(found) if isinstance(found, tuple) else -1
        if key in values and (n != tokens.length or header.kinds[key] != kind):
            raise damaged(header, key, f"it has to be {kind}, one for each of {tokens.length} tokens")
    check_special_tokens(header, tokens.length)
