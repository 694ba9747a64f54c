"""The text tower of a model: its file, its sizes, and the loaded llama_model behind it. Knows nothing about media."""

from __future__ import annotations

import copy
from pathlib import Path

from ..config import LoadConfig
from ..errors import ModelError
from ..native import staged
from ..native.llama import ContextOptions, LlamaModel
from ..reduction.planner import TextShape, row_bytes
from ..store.gguf_header import GgufHeader, read_whole
from .threads import thread_count


class TextModel:
    """A text tower. `close()` frees it; contexts made from it must be closed first.

    weights=False: see LlamaModel.
    """

    def __init__(self, path: Path, config: LoadConfig, *, weights: bool = True) -> None:
        self.path, self.config = path, config
        self.header: GgufHeader = read_whole(path)
        _check_kind(path, self.header)
        self.llama = LlamaModel(path, config.n_gpu_layers, weights=weights)
        self.n_vocab, self.n_embd, self.n_layer = self.llama.n_vocab, self.llama.n_embd, self.llama.n_layer
        self.n_ctx_train = self.llama.n_ctx_train

    @property
    def architecture(self) -> str:
        return self.header.architecture

    @property
    def n_threads(self) -> int:
        return thread_count(self.config.n_threads, self.n_embd)

    @property
    def options(self) -> ContextOptions:
        """How its contexts compute."""
        config = self.config
        return ContextOptions(
            config.n_ubatch, self.n_threads, config.type_k, config.type_v, config.flash_attn, config.prefill_precision
        )

    def with_config(self, config: LoadConfig) -> TextModel:
        """The same tower with other options of its contexts; it borrows this one's weights."""
        other = copy.copy(self)
        other.config = config
        return other

    def hparam(self, key: str, default: int = 0) -> int:
        """An integer key of the architecture, such as "attention.head_count"."""
        value = self.header.metadata.get(f"{self.architecture}.{key}", default)
        return int(value[0] if isinstance(value, tuple) else value)

    @property
    def shape(self) -> TextShape:
        """Sizes for the planner."""
        n_head = self.hparam("attention.head_count", 1)
        n_embd = self.hparam("embedding_length", self.n_embd)
        return TextShape(
            n_layer=self.n_layer,
            n_embd=n_embd,
            n_ff=self.hparam("feed_forward_length"),
            n_head=n_head,
            n_head_kv=self.hparam("attention.head_count_kv", n_head),
            n_vocab=self.n_vocab,
            d_head=self.hparam("attention.key_length", n_embd // n_head),
        )

    @property
    def chat_template(self) -> str | None:
        template = self.header.metadata.get("tokenizer.chat_template")
        return str(template) if template else None

    def prune_refusal(self) -> str:
        """Why visual tokens cannot be pruned in it, "" if they can."""
        return staged.unsupported_reason(self.llama.handle)

    def tokenize(self, text: str, *, start: bool, special: bool = True) -> list[int]:
        """Token ids of `text`. start: it begins the prompt, so BOS goes in front where the model wants one."""
        return self.llama.tokenize(text, start=start, special=special)

    @property
    def has_rotary_ids(self) -> bool:
        """Whether a row has several rotary ids (M-RoPE): of time, row and column, not its position alone."""
        return f"{self.architecture}.rope.dimension_sections" in self.header.metadata

    def kv_bytes_per_cell(self) -> int:
        """Bytes of K and V that one token takes over all layers."""
        heads_kv = self.hparam("attention.head_count_kv", self.hparam("attention.head_count", 1))
        d_head = self.hparam("embedding_length", self.n_embd) // max(1, self.hparam("attention.head_count", 1))
        d_k = self.hparam("attention.key_length", d_head) * heads_kv
        d_v = self.hparam("attention.value_length", d_head) * heads_kv
        return self.n_layer * (row_bytes(d_k, self.config.type_k) + row_bytes(d_v, self.config.type_v))

    def close(self) -> None:
        self.llama.close()


def _check_kind(path: Path, header: GgufHeader) -> None:
    if header.architecture == "clip":
        raise ModelError(f"{path} is a mmproj (vision tower), not a language model; give it as mmproj")
    if not header.architecture:
        raise ModelError(f"{path} names no general.architecture; it is not a language model")
