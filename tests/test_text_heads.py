"""Heads of language models whose keys cannot be: refused by a rule, which says what came and what is allowed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import pytest
from bent_gguf import array, number, text, texts
from fuzz.targets.gguf import Tensor, size_of

from aim_local.errors import ModelError
from aim_local.models.head import check_biases, check_types
from aim_local.models.text_head import check_text_head
from aim_local.store.gguf_header import read_header

LAYERS = "qwen2.block_count"
EPSILON = "qwen2.attention.layer_norm_rms_epsilon"
BASE = "qwen2.rope.freq_base"
TOKENS = "tokenizer.ggml.tokens"

REFUSED = [
    (LAYERS, number("uint32", 0), "is 0 (uint32); it has to be a whole number, 1 to 1000"),
    (LAYERS, number("float32", 12), "is 12.0 (float32)"),
    (LAYERS, text("12"), "is '12' (text)"),
    (LAYERS, array("uint32", 12), "is (12,) (array of uint32)"),
    ("qwen2.attention.head_count", number("int32", -1), "is -1 (int32)"),
    ("qwen2.attention.head_count", array("uint32", 5, 5), "one for each of 12 layers"),
    ("qwen2.attention.head_count", array("uint32"), "one for each of 12 layers"),
    ("qwen2.attention.head_count", number("uint32", 0), "it has to be 1 or more"),
    ("qwen2.attention.head_count_kv", text("five"), "is 'five' (text)"),
    ("qwen2.attention.key_length", text("x"), "is 'x' (text)"),
    (EPSILON, number("float32", -1), "is -1.0 (float32); it has to be float32, 0 to 0.1"),
    (EPSILON, number("float32", math.nan), "is nan (float32)"),
    (EPSILON, number("uint32", 0), "is 0 (uint32); it has to be float32"),
    (BASE, number("float32", 0), "is 0.0 (float32); it has to be float32, 1 to 1e+12"),
    (BASE, number("float32", math.inf), "is inf (float32)"),
    ("qwen2.rope.scaling.factor", number("float32", 1e-30), "it has to be float32, 0, or 0.01 to 1e+06"),
    ("qwen2.rope.scale_linear", number("float32", 1e-9), "it has to be float32, 0, or 0.01 to 1e+06"),
    ("qwen2.rope.scaling.attn_factor", number("float32", 0), "is 0.0 (float32); it has to be float32, 0.01 to 100"),
    ("qwen2.rope.scaling.yarn_ext_factor", number("float32", math.inf), "is inf (float32); it has to be a number"),
    ("qwen2.attention.scale", number("float32", math.nan), "is nan (float32); it has to be a number"),
    ("qwen2.rope.dimension_sections", text("1 2 3"), "is '1 2 3' (text)"),
    ("tokenizer.chat_template", number("uint32", 7), "is 7 (uint32); it has to be text"),
    ("tokenizer.chat_template", texts("a", "b"), "is an array of 2 (array of text); it has to be text"),
    ("tokenizer.chat_template", text(""), "is '' (text); it has to be text that is not blank"),
    ("tokenizer.chat_template", text(" \n"), "it has to be text that is not blank"),
    ("tokenizer.ggml.model", number("bool", 1), "is True (bool); it has to be text"),
    ("tokenizer.ggml.model", text("t5"), "is 't5' (text); it does not fit the vocabulary"),
    ("tokenizer.ggml.model", text("llama"), "which has no tokenizer.ggml.scores"),
    ("tokenizer.ggml.model", text("bert"), "which has tokenizer.ggml.merges"),
    ("tokenizer.ggml.pre", array("int32", 1), "(array of int32); it has to be text"),
    (TOKENS, array("int32", *range(474)), "it has to be array of text"),
    (TOKENS, None, "is missing; it has to be an array of text"),
    (TOKENS, texts("a", "b"), "one for each of 2 tokens"),
    ("tokenizer.ggml.token_type", array("int32", 1, 1), "one for each of 474 tokens"),
    ("tokenizer.ggml.scores", array("float32", *[0.0] * 475), "one for each of 474 tokens"),
    ("tokenizer.ggml.scores", array("int32", *[0] * 474), "it has to be array of float32"),
    ("tokenizer.ggml.eos_token_id", number("uint32", 474), "is 474 (uint32); it has to be a token's number, 0 to 473"),
    ("tokenizer.ggml.unknown_token_id", number("int32", -2), "is -2 (int32); it has to be a token's number"),
    ("tokenizer.ggml.eot_token_id", text("<|im_end|>"), "is '<|im_end|>' (text)"),
    ("tokenizer.ggml.add_bos_token", text("yes"), "is 'yes' (text); it has to be bool"),
    ("general.name", number("uint32", 3), "is 3 (uint32); it has to be text"),
    ("general.file_type", number("float32", math.inf), "is inf (float32)"),
    ("aim.something_new", number("uint32", 3), "this version of aim-local knows no such key"),
    ("general.type", text("adapter"), "is 'adapter' (text); it has to be 'model'"),
]


@pytest.mark.parametrize(("key", "value", "said"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_key_that_cannot_be(key: str, value: dict[str, int | bytes] | None, said: str, tmp_path: Path) -> None:
    path = bent.save(bent.with_key(bent.whole("model"), key, value), tmp_path / "model.gguf")
    with pytest.raises(ModelError) as caught:
        check_text_head(read_header(path))
    print(caught.value)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


ALLOWED = [
    ("qwen2.attention.head_count", array("uint32", *[5] * 12)),
    ("qwen2.attention.head_count_kv", array("int32", *[5] * 12)),
    ("qwen2.feed_forward_length", array("uint32", *[320] * 12)),
    ("qwen2.attention.sliding_window_pattern", array("bool", *[0] * 12)),
    ("tokenizer.ggml.bos_token_id", number("uint32", 2**32 - 1)),
    ("tokenizer.ggml.eos_token_id", number("uint32", 2**32 - 1)),
    ("tokenizer.ggml.scores", array("float32", *[-1.0] * 474)),
    ("tokenizer.ggml.model", text("no_vocab")),
    ("a.key.of.somebody", array("float32", 1.0)),
]


@pytest.mark.parametrize(("key", "value"), ALLOWED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_key_that_may_be(key: str, value: dict[str, int | bytes], tmp_path: Path) -> None:
    check_text_head(read_header(bent.save(bent.with_key(bent.whole("model"), key, value), tmp_path / "model.gguf")))


@pytest.mark.parametrize(
    ("kind", "name", "type_", "said"),
    [
        ("model", "blk.3.attn_q.bias", bent.I32, "is of type I32; it has to be F32"),
        ("model", "blk.6.attn_norm.weight", bent.F16, "is of type F16; it has to be F32"),
        ("model", "blk.0.attn_k.bias", bent.Q8_0, "is of type Q8_0; it has to be F32"),
        ("model", "blk.6.ffn_up.weight", bent.I8, "is of type I8; it has to be a type of floating point"),
        ("mmproj", "v.blk.1.ln1.bias", bent.I8, "is of type I8; it has to be F32"),
    ],
)
def test_a_weight_of_a_type_that_nothing_computes_with(
    kind: str, name: str, type_: int, said: str, tmp_path: Path
) -> None:
    def bend(tensor: Tensor) -> Tensor:
        return replace(tensor, type=type_, data=bytes(size_of(tensor.shape, type_)))

    file = bent.with_tensor(bent.whole(kind), name, bend)
    with pytest.raises(ModelError, match=f"the tensor '{name}' {said}"):
        check_types(read_header(bent.save(file, tmp_path / "model.gguf")))


@pytest.mark.parametrize(
    ("kind", "name", "shape", "said"),
    [
        ("model", "blk.3.attn_q.bias", (), "is missing, and other layers have it"),
        ("model", "blk.3.attn_q.bias", (80,), "has 80 values, and its weight makes 160"),
        ("mmproj", "v.blk.2.ffn_up.bias", (), "is missing, and other layers have it"),
        ("mmproj", "v.blk.0.ln1.bias", (64,), "has 64 values, and its weight makes 128"),
        ("mmproj", "v.blk.1.attn_q.bias", (1,), "has 1 values, and its weight makes 128"),
        ("mmproj", "v.patch_embd.bias", (1,), "has 1 values, and its weight makes 128"),
        ("mmproj", "mm.0.bias", (80,), "has 80 values, and its weight makes"),
    ],
)
def test_a_bias_that_is_missing_or_short(
    kind: str, name: str, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    """llama.cpp leaves out the one, and repeats the other until it fits."""
    file = bent.with_tensor(bent.whole(kind), name, bent.as_numbers(shape) if shape else lambda _: None)
    with pytest.raises(ModelError, match=f"the tensor '{name}' {said}"):
        check_biases(read_header(bent.save(file, tmp_path / "model.gguf")))
