"""Sizes in the head of a language model that have to fit each other, or the weights: heads, rotary dimensions, experts.

llama.cpp ends the process at most of these, or says which tensor it missed, not which key is wrong.
ref: llama.cpp, src/llama-model.cpp (llama_model_base::load_hparams), src/models/ (load_arch_tensors, graph), ggml.c
(ggml_rope_multi); conversion/ for what its converter writes
"""

from __future__ import annotations

from typing import Any

from ..store.gguf_header import GgufHeader
from .head import LAYER, damaged

MROPE = ("qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe")
_GATED = ("qwen35", "qwen35moe")  # the matrix of queries makes a gate for each of them too
_BY_WINDOW = ("gemma3", "gemma4")  # layers that see a window have heads of their own size
_WHOLE_HEADS = ("llama", "qwen2", "qwen2vl", "qwen3", "qwen3vl", "qwen3vlmoe")  # all of a head is turned
FAMILIES = (*_WHOLE_HEADS, *_GATED, *_BY_WINDOW)  # architectures of the families; others are llama.cpp's own affair
_MOST_EXPERTS = 512  # LLAMA_MAX_EXPERTS
_LAYERS = "block_count"
_BY_LAYER = (
    *("attention.head_count", "attention.head_count_kv", "feed_forward_length", "expert_used_count"),
    *("attention.recurrent_layers", "attention.sliding_window_pattern"),
)
_OF_SOME = ("leading_dense_block_count", "n_deepstack_layers")  # so many of the layers
_REST = ("nextn_predict_layers", "attention.shared_kv_layers")  # so many, beside one at least
_STATES = tuple(f"ssm.{what}" for what in ("conv_kernel", "state_size", "inner_size", "time_step_rank", "group_count"))


def check_text_sizes(header: GgufHeader) -> None:
    """Raises ModelError. Behind `check_rules`."""
    sizes = _Sizes(header)
    sizes.check_layers()
    sizes.check_experts()
    if header.architecture in _GATED:
        sizes.check_states()
    if header.architecture in FAMILIES:
        sizes.check_widths()
    sizes.check_heads()
    if header.architecture in FAMILIES:
        sizes.check_matrices()
        sizes.check_rotary()


class _Sizes:
    """Of one file, which may be the first part of a model."""

    def __init__(self, header: GgufHeader) -> None:
        self.header, self.architecture = header, header.architecture
        self.shapes = {tensor.name: tensor.shape for tensor in header.tensors}
        self.n_layer = self._number(_LAYERS, 1)

    def check_layers(self) -> None:
        """Layers that the file has weights of, and keys that say something of each."""
        last = max((int(m[2]) for m in map(LAYER.fullmatch, self.shapes) if m and m[1] == "blk."), default=-1)
        if last >= self.n_layer:
            self._refuse(_LAYERS, f"the file has weights of {last + 1} layers")
        for name in _BY_LAYER:
            value = self._value(name)
            is_period = name == "attention.sliding_window_pattern" and not isinstance(value, tuple)
            if isinstance(value, tuple) and len(value) != self.n_layer:
                self._refuse(name, f"it has to be one number, or one for each of {self.n_layer} layers")
            if is_period and self.architecture == "gemma4" and value is not None:
                self._refuse(name, f"it has to be one for each of {self.n_layer} layers")
        for name, most in (*((name, self.n_layer) for name in _OF_SOME), *((name, self.n_layer - 1) for name in _REST)):
            if self._number(name, 0) > most:
                self._refuse(name, f"it has to be {most} at most, the model has {self.n_layer} layers")

    def check_heads(self) -> None:
        """Some head in some layer; the heads of keys and values are shared by equally many of queries."""
        name = "attention.head_count"
        heads = self._by_layer(name, 0)
        if self._value(name) is not None and not any(heads):
            self._refuse(name, "it has to be 1 or more")
        for n, shared in zip(heads, self._by_layer(f"{name}_kv", 0), strict=False):
            if shared and n % shared:
                self._refuse(f"{name}_kv", f"it has to divide {self._key(name)}, which is {n}")

    def check_experts(self) -> None:
        n, used = self._number("expert_count", 0), max(self._by_layer("expert_used_count", 0))
        groups, used_groups = self._number("expert_group_count", 0), self._number("expert_group_used_count", 0)
        if n > _MOST_EXPERTS:
            self._refuse("expert_count", f"llama.cpp takes up to {_MOST_EXPERTS}")
        if self.architecture.startswith("hunyuan") and n <= 1:  # which has none then
            return
        if used > n or (n and not used):
            allowed = f"1 to {n}" if n else "0"
            self._refuse("expert_used_count", f"it has to be {allowed}, as {self._key('expert_count')} is {n}")
        if groups and (groups >= n or (groups > 1 and n % groups)):
            self._refuse("expert_group_count", f"it has to divide {self._key('expert_count')}, which is {n}")
        if groups > 1 and not 0 < used_groups < groups:
            self._refuse("expert_group_used_count", f"it has to be 1 to {groups - 1}, of {groups} groups")

    def check_rotary(self) -> None:
        """Values of a head that are turned by its position, in pairs."""
        name, d_head = "rope.dimension_count", self._d_head(self._length("key"))
        n = self._number(name, d_head)
        self._check_turned(name, n, d_head, whole=self.architecture in _WHOLE_HEADS)
        if self.architecture in _BY_WINDOW:
            d_short, short = self._d_head(self._length("key", swa=True)), f"{name}_swa"
            self._check_turned(short, self._number(short, n), d_short)
        if self.architecture in MROPE:
            self._check_sections(n // 2)

    def _check_sections(self, n_pairs: int) -> None:
        """Pairs that are turned by each of a row's ids: of time, row and column."""
        name = "rope.dimension_sections"
        sections = self._value(name)
        if isinstance(sections, tuple) and (len(sections) != 4 or sum(sections) != n_pairs):
            self._refuse(name, f"it has to be 4 numbers, {n_pairs} together, as so many pairs of values are turned")

    def _check_turned(self, name: str, n: int, d_head: int, *, whole: bool = False) -> None:
        if n < 2 or n % 2 or n > d_head or (whole and n != d_head):
            allowed = f"{d_head}" if whole else f"an even number, 2 to {d_head}"
            self._refuse(name, f"it has to be {allowed}, as a head has {d_head} values")

    def check_widths(self) -> None:
        """Of a row, and rows of the table of tokens, which is there once for all layers."""
        width, rows = (*self.shapes.get("token_embd.weight", ()), 0, 0)[:2]
        if width and self._number("embedding_length", width) != width:
            self._refuse("embedding_length", f"token_embd.weight has rows of {width}")
        n = self._number("vocab_size", rows)
        if rows and n != rows:
            self._refuse("vocab_size", f"token_embd.weight has {rows} rows, one for each token")
        heads = self._by_layer("attention.head_count", 0)[0]
        if heads and self._value("attention.key_length") is None and width % heads:
            self._refuse("attention.head_count", f"it has to divide {self._key('embedding_length')}, which is {width}")

    def check_matrices(self) -> None:
        """Of each layer: heads times their size, and the layer between."""
        queries, keys = "attention.head_count", "attention.head_count_kv"
        shared = self._by_layer(keys if self._value(keys) is not None else queries, 0)
        between = self._by_layer("feed_forward_length", 0)
        for i, (n, n_shared, n_ff) in enumerate(zip(self._by_layer(queries, 0), shared, between, strict=True)):
            swa = self._sees_window(i)
            gate = 2 if self.architecture in _GATED else 1
            self._check_rows(i, "attn_q", queries, gate * n, self._length("key", swa=swa))
            self._check_rows(i, "attn_k", keys, n_shared, self._length("key", swa=swa))
            self._check_rows(i, "attn_v", keys, n_shared, self._length("value", swa=swa))
            for part in ("ffn_gate", "ffn_up"):
                self._check_rows(i, part, "feed_forward_length", n_ff)

    def check_states(self) -> None:
        """Sizes of the states of recurrent layers."""
        for name in _STATES:
            if self._value(name) is not None and self._number(name, 0) < 1:
                self._refuse(name, "it has to be 1 or more")
        inner, heads, groups = (self._number(name, 0) for name in _STATES[2:])
        if inner and heads and inner % heads:
            self._refuse("ssm.inner_size", f"it has to be a multiple of {self._key('ssm.time_step_rank')}, {heads}")
        if heads and groups and heads % groups:
            self._refuse("ssm.time_step_rank", f"it has to be a multiple of {self._key('ssm.group_count')}, {groups}")

    def _check_rows(self, i: int, part: str, name: str, n: int, length: str = "") -> None:
        """That a matrix makes n values, or as many heads; length: the key of their size, blamed where it is there."""
        d_head = self._d_head(length) if length else 1
        shape = self.shapes.get(f"blk.{i}.{part}.weight", ())
        if len(shape) == 2 and shape[1] != n * d_head:
            blamed = length if length and self._value(length) is not None else name
            instead = f"{n} x {d_head}" if length else f"{n}"
            self._refuse(blamed, f"blk.{i}.{part}.weight makes {shape[1]} values, not {instead}")

    def _sees_window(self, i: int) -> bool:
        """Whether a layer of Gemma 4, whose heads have two sizes, sees a window only."""
        return self.architecture == "gemma4" and bool(self._by_layer("attention.sliding_window_pattern", 0)[i])

    def _length(self, what: str, *, swa: bool = False) -> str:
        """The key that says how many values a head has in keys, or in values."""
        own = f"attention.{what}_length_swa"
        return own if swa and self._value(own) is not None else f"attention.{what}_length"

    def _d_head(self, length: str) -> int:
        """Values of a head, by the key that says so, or as llama.cpp takes it without one."""
        heads = self._by_layer("attention.head_count", 0)[0]
        return self._number(length, self._number("embedding_length", 0) // max(1, heads))

    def _key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def _value(self, name: str) -> Any:
        return self.header.metadata.get(self._key(name))

    def _number(self, name: str, default: int) -> int:
        """Of an array its largest."""
        value = self._value(name)
        return int(default if value is None else max(value, default=0) if isinstance(value, tuple) else value)

    def _by_layer(self, name: str, default: int) -> list[int]:
        """For each layer, where one number stands for all or is not there."""
        value = self._value(name)
        return [int(n) for n in value] if isinstance(value, tuple) else [self._number(name, default)] * self.n_layer

    def _refuse(self, name: str, needed: str) -> None:
        raise damaged(self.header, self._key(name), needed)
