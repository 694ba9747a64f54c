"""The text tower of a model: its file, its sizes, and the loaded llama_model behind it. Knows nothing about media."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from ..config import LoadConfig
from ..errors import ModelError
from ..native import staged
from ..native.devices import gpu_layers
from ..native.llama import ContextOptions, LlamaModel
from ..native.rehearsal import rehearse
from ..native.rpc import RemoteDevices
from ..reduction.planner import TextShape, row_bytes
from ..store.gguf_files import parts
from ..store.gguf_header import GgufHeader, read_whole
from .text_head import check_text_head
from .threads import thread_count
from .vocabulary import check_vocabulary

_SHORT, _OFTEN = 4096, 200  # characters of a text; times that a name stands in it


class TextModel:
    """A text tower. `close()` frees it; contexts made from it must be closed first.

    weights=False: see LlamaModel. config: as given, with the layers on the GPU that it comes to on this machine.
    """

    def __init__(self, path: Path, config: LoadConfig, *, weights: bool = True) -> None:
        n_gpu_layers = gpu_layers(config.n_layers_away)
        self.path, self.config = path, replace(config, n_gpu_layers=n_gpu_layers)
        self.header: GgufHeader = read_whole(path)
        _check_kind(path, self.header)
        check_text_head(self.header)
        others = [read_whole(part) for part in parts(path)[1:]]
        rehearse([self.header, *others], "text", weights=weights, first=lambda: check_vocabulary(self.header))
        remote = self._connect() if config.rpc and weights else None
        self.llama = LlamaModel(path, n_gpu_layers, weights=weights, remote=remote)
        self.n_vocab, self.n_embd, self.n_layer = self.llama.n_vocab, self.llama.n_embd, self.llama.n_layer
        self.n_ctx_train = self.llama.n_ctx_train

    def _connect(self) -> RemoteDevices:
        """The servers of LoadConfig.rpc. Raises NativeError, and ModelError where they have too little memory."""
        remote = RemoteDevices(self.config.rpc)
        n_all = self.hparam("block_count") + 1  # and the output
        n_asked = self.config.n_gpu_layers
        n_away = n_all if n_asked is None or n_asked < 0 else min(n_all, n_asked)
        need, (free, total) = self.path.stat().st_size * n_away / n_all, remote.memory()
        if total and need > free:
            remote.close()
            raise ModelError(
                f"{self.path}: {n_away} of {n_all} layers take {need / 2**30:.1f} GiB, the RPC servers have "
                f"{free / 2**30:.1f} GiB free; name more of them, or place fewer layers there (n_gpu_layers)"
            )
        return remote

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
        return int(next(iter(value), default) if isinstance(value, tuple) else value)

    @property
    def shape(self) -> TextShape:
        """Sizes for the planner."""
        n_head = max(1, self.hparam("attention.head_count", 1))
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
        return None if template is None else str(template)

    def prune_refusal(self) -> str:
        """Why visual tokens cannot be pruned in it, "" if they can."""
        if self.llama.is_recurrent:
            return "some of its layers are recurrent, and layers that see fewer tokens are made for KV caches alone"
        with self.llama.owned.using() as model:
            return staged.unsupported_reason(model)

    def tokenize(self, text: str, *, start: bool, special: bool = True) -> list[int]:
        """Token ids of `text`. start: it begins the prompt, so BOS goes in front where the model wants one."""
        return self.llama.tokenize(text, start=start, special=special)

    def specials_in(self, text: str) -> list[str]:
        """The names of special tokens that stand in it: what the tokenizer would take for turns and media.

        In a long text also those that stand there very often: llama.cpp takes minutes for 100,000 in one text.
        """
        is_short = len(text) <= _SHORT
        if is_short and self.tokenize(text, start=False) == self.tokenize(text, start=False, special=False):
            return []
        found = [name for name in self.llama.special_names if name in text]
        if not is_short:
            found += [name for name in self.llama.added_names if text.count(name) > _OFTEN]
        return found

    @property
    def has_rotary_ids(self) -> bool:
        """Whether a row has several rotary ids (M-RoPE): of time, row and column, not its position alone."""
        return f"{self.architecture}.rope.dimension_sections" in self.header.metadata

    def kv_bytes_per_cell(self) -> int:
        """Bytes of K and V that one token takes over all layers that keep them."""
        widths = [width for il, width in enumerate(self._kv_widths()) if not self._is_recurrent(il)]
        return sum(row_bytes(k, self.config.type_k) + row_bytes(v, self.config.type_v) for k, v in widths)

    def recurrent_bytes(self) -> int:
        """Bytes of the states of recurrent layers, which do not grow with the tokens."""
        d, inner = self.hparam("ssm.state_size"), self.hparam("ssm.inner_size")
        past = max(0, self.hparam("ssm.conv_kernel") - 1) * (inner + 2 * self.hparam("ssm.group_count") * d)
        return sum(self._is_recurrent(il) for il in range(self.n_layer)) * 4 * (past + d * inner)

    def _kv_widths(self) -> list[tuple[int, int]]:
        """Widths of K and V by layer. The last layers may read those of earlier ones, and keep none."""
        n_head = self._by_layer("attention.head_count", 1)
        heads = self._by_layer("attention.head_count_kv", n_head[0])
        d_head = self.hparam("embedding_length", self.n_embd) // max(1, n_head[0])
        d_k, d_v = (self.hparam(f"attention.{what}_length", d_head) for what in ("key", "value"))
        short = [self.hparam(f"attention.{what}_length_swa", d) for what, d in (("key", d_k), ("value", d_v))]
        windows = self._by_layer("attention.sliding_window_pattern", 0)
        own = self.n_layer - self.hparam("attention.shared_kv_layers")
        return [
            (n * (short[0] if window else d_k), n * (short[1] if window else d_v))
            for n, window in zip(heads[:own], windows, strict=False)
        ]

    def _is_recurrent(self, il: int) -> bool:
        """Whether a layer keeps a state, not the keys and values of each token."""
        if not self.hparam("ssm.state_size"):
            return False
        interval = self.hparam("full_attention_interval", 4)
        layers = self.header.metadata.get(f"{self.architecture}.attention.recurrent_layers")
        return bool(layers[il]) if isinstance(layers, tuple) and il < len(layers) else (il + 1) % interval != 0

    def _by_layer(self, key: str, default: int) -> list[int]:
        """An integer key that may be one for all layers or one each."""
        value = self.header.metadata.get(f"{self.architecture}.{key}", default)
        return [int(x) for x in (value if isinstance(value, tuple) else [value] * self.n_layer)][: self.n_layer]

    def close(self) -> None:
        self.llama.close()


def _check_kind(path: Path, header: GgufHeader) -> None:
    if header.architecture == "clip":
        raise ModelError(f"{path} is a mmproj (vision tower), not a language model; give it as mmproj")
    if not header.architecture:
        raise ModelError(f"{path} names no general.architecture; it is not a language model")
