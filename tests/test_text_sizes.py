"""Sizes of a language model that do not fit each other or its weights: named before llama.cpp gives up over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import bent_gguf as bent
import pytest
from bent_gguf import array, number, text

from aim_local.errors import ModelError
from aim_local.models.text_head import check_text_head
from aim_local.store.gguf_header import read_header

# 12 layers, rows of 160, 5 heads of 32, 320 between
Keys = Mapping[str, dict[str, int | bytes] | None]
SWA = array("bool", *[1, 1, 1, 0] * 3)
LENGTHS = {f"attention.{what}_length": number("uint32", 32) for what in ("key", "value")}
SHORT = {f"{key}_swa": value for key, value in LENGTHS.items()}
MROPE = {"rope.dimension_sections": array("int32", 4, 6, 6, 0)}
GEMMA4 = LENGTHS | SHORT | {"attention.sliding_window": number("uint32", 512), "attention.sliding_window_pattern": SWA}


def u32(value: int) -> dict[str, int | bytes]:
    return number("uint32", value)


def checked(architecture: str, keys: Keys, path: Path) -> None:
    file = bent.of_architecture(bent.whole("model"), architecture)
    for key, value in keys.items():
        file = bent.with_key(file, f"{architecture}.{key}", value)
    check_text_head(read_header(bent.save(file, path)))


REFUSED: list[tuple[str, Keys, str]] = [
    ("qwen2", {"rope.dimension_count": u32(3)}, "rope.dimension_count is 3 (uint32); it has to be 32, as a head has"),
    ("qwen2", {"rope.dimension_count": u32(64)}, "rope.dimension_count is 64 (uint32); it has to be 32"),
    ("qwen3", {"rope.dimension_count": u32(0)}, "rope.dimension_count is 0 (uint32); it has to be 32"),
    ("llama", {"rope.dimension_count": u32(16)}, "rope.dimension_count is 16 (uint32); it has to be 32"),
    ("gemma3", {"rope.dimension_count": u32(31)}, "it has to be an even number, 2 to 32"),
    ("gemma4", {**GEMMA4, "rope.dimension_count_swa": u32(34)}, "dimension_count_swa is 34 (uint32); it has to be an"),
    ("qwen2vl", {"rope.dimension_sections": array("int32", 4, 6, 7, 0)}, "it has to be 4 numbers, 16 together"),
    ("qwen2vl", {"rope.dimension_sections": array("int32", 0, 0, 0, 0)}, "it has to be 4 numbers, 16 together"),
    ("qwen3vl", {"rope.dimension_sections": array("int32", 5, 5, 6)}, "it has to be 4 numbers, 16 together"),
    ("qwen2", {"rope.scaling.type": text("frog")}, "it has to be 'none' or 'linear' or 'yarn' or 'longrope'"),
    ("qwen2vl", {**MROPE, "rope.scaling.type": text("mrope")}, "rope.scaling.type is 'mrope' (text); it has to be"),
    ("llama", {"rope.scaling.type": text("")}, "rope.scaling.type is '' (text); it has to be"),
    ("llama", {"rope.scaling.original_context_length": u32(0)}, "is 0 (uint32); it has to be a whole number, 1 to"),
    (
        "qwen2",
        {"attention.key_length": u32(64)},
        "key_length is 64 (uint32); blk.0.attn_q.weight makes 160 values",
    ),
    ("qwen2", {"attention.value_length": u32(16)}, "value_length is 16 (uint32); blk.0.attn_v.weight makes 160 values"),
    ("qwen3", {"attention.key_length": u32(0)}, "key_length is 0 (uint32); blk.0.attn_q.weight makes 160 values"),
    ("gemma4", {**GEMMA4, "attention.key_length_swa": u32(64)}, "key_length_swa is 64 (uint32); blk.0.attn_q.weight"),
    ("gemma4", {**GEMMA4, "attention.value_length": u32(64)}, "value_length is 64 (uint32); blk.3.attn_v.weight"),
    ("qwen2", {"attention.head_count": u32(7)}, "it has to divide qwen2.embedding_length, which is 160"),
    ("qwen2", {"attention.head_count": u32(10)}, "head_count_kv is 5 (uint32); blk.0.attn_k.weight makes 160 values"),
    ("qwen2", {"attention.head_count_kv": u32(2)}, "it has to divide qwen2.attention.head_count, which is 5"),
    ("qwen2", {"attention.head_count_kv": u32(0)}, "blk.0.attn_k.weight makes 160 values, not 0 x 32"),
    ("mpt", {"attention.head_count_kv": u32(3)}, "it has to divide mpt.attention.head_count, which is 5"),
    ("llama", {"attention.head_count_kv": array("uint32", *[5] * 11, 1)}, "blk.11.attn_k.weight makes 160 values"),
    (
        "qwen2",
        {"feed_forward_length": u32(321)},
        "feed_forward_length is 321 (uint32); blk.0.ffn_gate.weight makes",
    ),
    ("llama", {"feed_forward_length": array("uint32", *[320] * 11, 160)}, "blk.11.ffn_gate.weight makes 320 values"),
    ("qwen3", {"feed_forward_length": u32(0)}, "blk.0.ffn_gate.weight makes 320 values, not 0"),
    ("qwen2", {"embedding_length": u32(80)}, "embedding_length is 80 (uint32); token_embd.weight has rows of 160"),
    ("qwen2", {"vocab_size": u32(9)}, "vocab_size is 9 (uint32); token_embd.weight has 474 rows"),
    ("llama", {"vocab_size": u32(475)}, "vocab_size is 475 (uint32); token_embd.weight has 474 rows"),
    ("qwen3", {"vocab_size": u32(1)}, "vocab_size is 1 (uint32); token_embd.weight has 474 rows"),
    ("qwen2", {"block_count": u32(11)}, "block_count is 11 (uint32); the file has weights of 12 layers"),
    ("mpt", {"block_count": u32(1)}, "block_count is 1 (uint32); the file has weights of 12 layers"),
    ("llama", {"attention.head_count": array("uint32", *[5] * 13)}, "or one for each of 12 layers"),
    ("qwen35", {"attention.recurrent_layers": array("bool", 1, 0)}, "or one for each of 12 layers"),
    ("gemma4", {**GEMMA4, "attention.sliding_window_pattern": u32(6)}, "it has to be one for each of 12 layers"),
    ("gemma4", {**GEMMA4, "attention.shared_kv_layers": u32(12)}, "it has to be 11 at most, the model has 12 layers"),
    ("qwen35", {"nextn_predict_layers": u32(13)}, "it has to be 11 at most, the model has 12 layers"),
    ("qwen3vl", {"n_deepstack_layers": u32(13)}, "it has to be 12 at most, the model has 12 layers"),
    ("llama", {"expert_count": u32(8), "expert_used_count": u32(9)}, "expert_used_count is 9 (uint32); it has to be 1"),
    ("llama", {"expert_count": u32(8)}, "expert_used_count is missing; it has to be 1 to 8"),
    ("qwen2", {"expert_used_count": u32(2)}, "it has to be 0, as qwen2.expert_count is 0"),
    ("qwen3vlmoe", {"expert_count": u32(513), "expert_used_count": u32(8)}, "llama.cpp takes up to 512"),
    (
        "deepseek2",
        {"expert_count": u32(8), "expert_used_count": u32(2), "expert_group_count": u32(3)},
        "expert_group_count is 3 (uint32); it has to divide deepseek2.expert_count, which is 8",
    ),
    (
        "deepseek2",
        {"expert_count": u32(8), "expert_used_count": u32(2), "expert_group_count": u32(4)},
        "expert_group_used_count is missing; it has to be 1 to 3, of 4 groups",
    ),
    ("qwen35", {"ssm.time_step_rank": u32(0)}, "ssm.time_step_rank is 0 (uint32); it has to be 1 or more"),
    ("qwen35", {"ssm.inner_size": u32(100), "ssm.time_step_rank": u32(8)}, "it has to be a multiple of qwen35.ssm.t"),
    ("qwen35", {"ssm.time_step_rank": u32(8), "ssm.group_count": u32(3)}, "it has to be a multiple of qwen35.ssm.g"),
]


@pytest.mark.parametrize(("architecture", "keys", "said"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_sizes_that_do_not_fit(architecture: str, keys: Keys, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(ModelError) as caught:
        checked(architecture, keys, path)
    print(caught.value)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: {architecture}.")
    assert "\n" not in str(caught.value)


ALLOWED: list[tuple[str, Keys]] = [
    *((name, {}) for name in ("qwen2", "qwen3", "llama", "gemma3", "qwen2vl", "qwen3vl", "mpt")),
    ("qwen2", {"attention.head_count": array("uint32", *[5] * 12), "rope.dimension_count": u32(32)}),
    ("qwen2", {"vocab_size": None, "rope.scaling.type": text("yarn")}),
    ("qwen2vl", MROPE),
    ("gemma4", {**GEMMA4, "rope.dimension_count": u32(32), "rope.dimension_count_swa": u32(8)}),
    ("gemma3", {"attention.sliding_window": u32(512), "attention.sliding_window_pattern": u32(6)}),
    ("llama", {"expert_count": u32(8), "expert_used_count": u32(2)}),
    ("hunyuan-dense", {"expert_count": u32(1), "expert_used_count": u32(1)}),
    ("mpt", {"rope.dimension_count": u32(7), "attention.key_length": u32(3)}),  # of an architecture nobody here knows
]


@pytest.mark.parametrize(("architecture", "keys"), ALLOWED, ids=lambda v: v if isinstance(v, str) else "")
def test_sizes_that_fit(architecture: str, keys: Keys, tmp_path: Path) -> None:
    checked(architecture, keys, tmp_path / "model.gguf")


def test_the_first_part_of_a_model_has_some_of_its_layers(tmp_path: Path) -> None:
    file = bent.whole("model")
    first = tuple(t for t in file.tensors if t.name.startswith((b"blk.0.", b"blk.1.")))
    check_text_head(read_header(bent.save(bent.with_tensors(file, first), tmp_path / "model.gguf")))
