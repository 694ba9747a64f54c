"""The language model: one loaded llama_model with its vocabulary, and the contexts made from it.

Knows tokens, positions and KV cells. Knows nothing about pictures: visual tokens arrive as embedding rows.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import LoadConfig
from ..errors import ContextError, ModelError, NativeError
from ..reduction.planner import TextShape, row_bytes
from ..store.gguf_header import GgufHeader, read_header
from . import log as _logs
from .library import llama, mtmd
from .staged import KV_TYPES

FLASH_ATTN = {"auto": -1, False: 0, True: 1}
_TINY = 512
_N_CTX_STEP = 256  # llama.cpp pads a context to this many cells

Progress = Callable[[int, int], None]


def read_whole(path: Path) -> GgufHeader:
    """The header of a GGUF file that is not cut short. Raises ModelError."""
    header = read_header(path)
    missing = header.missing_bytes()
    if missing:
        raise ModelError(f"{path}: is truncated, {missing} bytes of weights are missing; download or convert it again")
    return header


class TextModel:
    """A text tower. `close()` frees it; contexts made from it must be closed first.

    weights=False reads the vocabulary and sizes only: contexts made from it know how large they would be, and hold
    nothing. Nothing can be computed with them.
    """

    def __init__(self, path: Path, config: LoadConfig, *, weights: bool = True) -> None:
        self.path, self.config = path, config
        self.header: GgufHeader = read_whole(path)
        self._check_kind()
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 999 if config.n_gpu_layers < 0 else config.n_gpu_layers
        if not weights:
            params.no_alloc, params.load_mode = True, llama.LLAMA_LOAD_MODE_NONE
        _logs.clear()
        self._model = llama.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ModelError(f"{path} does not load: {_logs.last_error()}")
        self.n_vocab = int(llama.llama_vocab_n_tokens(self.vocab))
        self.n_embd = int(llama.llama_model_n_embd_inp(self._model))
        self.n_layer = int(llama.llama_model_n_layer(self._model))
        self.n_ctx_train = int(llama.llama_model_n_ctx_train(self._model))

    def _check_kind(self) -> None:
        if self.header.architecture == "clip":
            raise ModelError(f"{self.path} is a mmproj (vision tower), not a language model; give it as mmproj")
        if not self.header.architecture:
            raise ModelError(f"{self.path} names no general.architecture; it is not a language model")

    @property
    def handle(self) -> Any:
        if not self._model:
            raise NativeError("the model is closed; load it again")
        return self._model

    @property
    def vocab(self) -> Any:
        return llama.llama_model_get_vocab(self.handle)

    @property
    def architecture(self) -> str:
        return self.header.architecture

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

    def tokenize(self, text: str, *, start: bool, special: bool = True) -> list[int]:
        """Token ids of `text`. start: it begins the prompt, so BOS goes in front where the model wants one."""
        data = text.encode("utf-8")
        n = len(data) + 16
        buffer = (ctypes.c_int32 * n)()
        found = llama.llama_tokenize(self.vocab, data, len(data), buffer, n, start, special)
        if found < 0:
            buffer = (ctypes.c_int32 * -found)()
            found = llama.llama_tokenize(self.vocab, data, len(data), buffer, -found, start, special)
        return list(buffer[:found])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """UTF-8 bytes of one token, possibly part of a character."""
        buffer = ctypes.create_string_buffer(64)
        n = llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = llama.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:n]

    def token_text(self, token: int) -> str:
        """A token's text with special tokens spelled out, "" for none (-1)."""
        return "" if token < 0 else self.piece(token, special=True).decode("utf-8", "replace")

    @property
    def bos_text(self) -> str:
        return self.token_text(llama.llama_vocab_bos(self.vocab))

    @property
    def eos_text(self) -> str:
        return self.token_text(llama.llama_vocab_eos(self.vocab))

    def is_eog(self, token: int) -> bool:
        """Whether `token` ends a turn."""
        return bool(llama.llama_vocab_is_eog(self.vocab, token))

    def kv_bytes_per_cell(self) -> int:
        """Bytes of K and V that one token takes over all layers."""
        heads_kv = self.hparam("attention.head_count_kv", self.hparam("attention.head_count", 1))
        d_head = self.hparam("embedding_length", self.n_embd) // max(1, self.hparam("attention.head_count", 1))
        d_k = self.hparam("attention.key_length", d_head) * heads_kv
        d_v = self.hparam("attention.value_length", d_head) * heads_kv
        return self.n_layer * (row_bytes(d_k, self.config.type_k) + row_bytes(d_v, self.config.type_v))

    def close(self) -> None:
        if self._model:
            llama.llama_model_free(self._model)
            self._model = None


def padded_cells(n: int) -> int:
    """Cells a context really has when n are asked for."""
    return -(-n // _N_CTX_STEP) * _N_CTX_STEP


def physical_cores() -> int:
    """Cores this process may run on, hyper-threads counted once: more threads only wait for each other."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return max(1, os.cpu_count() or 1)
    siblings = set()
    for cpu in allowed:
        listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(listed.read_text() if listed.is_file() else str(cpu))
    return max(1, len(siblings))


def thread_count(asked: int | None, n_embd: int) -> int:
    """Threads for a tower of width n_embd: what was asked, else the physical cores, else one for a tiny tower.

    A tiny tower's graph is all barriers: a second thread gains nothing, and on a busy machine waits at each of them.
    """
    return asked or (physical_cores() if n_embd >= _TINY else 1)


def context_params(config: LoadConfig, n_ctx: int, n_embd: int, n_ubatch: int | None = None) -> Any:
    """llama_context_params for `n_ctx` cells of a model of width n_embd."""
    params = llama.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = n_ubatch or config.n_ubatch  # one ubatch a call: progress and Ctrl-C get a turn
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = thread_count(config.n_threads, n_embd)
    params.type_k, params.type_v = KV_TYPES[config.type_k], KV_TYPES[config.type_v]
    params.flash_attn_type = FLASH_ATTN[config.flash_attn]
    params.no_perf = True
    return params


def _bytes_of(data: bytearray) -> Any:
    """`data` as a C array, not copied."""
    return (ctypes.c_uint8 * len(data)).from_buffer(data)


@dataclass(frozen=True)
class Mark:
    """A place in a context: next position, cells used in the first layer, and how many of them are visual tokens.

    M-RoPE media take more cells than positions.
    """

    n_past: int
    n_cells: int
    n_visual: int = 0


class Context:
    """One conversation's KV cache and positions (sequence 0). `close()` frees it."""

    def __init__(self, model: TextModel, n_ctx: int, n_ubatch: int | None = None) -> None:
        self.model = model
        self.n_past = self.n_cells = self.n_visual = 0
        _logs.clear()
        params = context_params(model.config, n_ctx, model.n_embd, n_ubatch)
        self._ctx = llama.llama_init_from_model(model.handle, params)
        if not self._ctx:
            need = padded_cells(n_ctx) * model.kv_bytes_per_cell() / 2**20
            raise ContextError(
                f"a context of {n_ctx} tokens ({need:.0f} MiB of KV cache) cannot be made: {_logs.last_error()}; "
                "take fewer frames or a smaller KV type"
            )
        self.n_ctx = int(llama.llama_n_ctx(self._ctx))
        self.n_batch = int(llama.llama_n_batch(self._ctx))

    @property
    def handle(self) -> Any:
        if not self._ctx:
            raise NativeError("the context is closed")
        return self._ctx

    def kv_bytes(self) -> int:
        """Bytes of the KV cache, all cells."""
        return self.n_ctx * self.model.kv_bytes_per_cell()

    def _check_room(self, n: int) -> None:
        if self.n_cells + n > self.n_ctx:
            raise ContextError(
                f"the context is full: {self.n_cells} of {self.n_ctx} tokens used, {n} more needed; "
                "start over (/reset) or load with a larger --ctx"
            )

    def _decode(self, batch: Any, n: int) -> None:
        _logs.clear()
        result = llama.llama_decode(self.handle, batch)
        if result != 0:
            raise NativeError(f"llama_decode failed with {result} at position {self.n_past}: {_logs.last_error()}")
        self.n_past += n
        self.n_cells += n

    def decode_tokens(self, tokens: Sequence[int], *, logits: bool, progress: Progress | None = None) -> None:
        """Appends text tokens; with `logits`, those after the last one can be read."""
        self._check_room(len(tokens))
        for start in range(0, len(tokens), self.n_batch):
            part = np.asarray(tokens[start : start + self.n_batch], dtype=np.int32)
            wanted = logits and start + len(part) == len(tokens)
            batch, keep = self._batch(len(part), wanted)
            batch.token = part.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            self._decode(batch, len(part))
            del keep
            if progress:
                progress(start + len(part), len(tokens))

    def decode_rows(self, rows: NDArray[np.float32], progress: Progress | None = None) -> None:
        """Appends visual tokens, float32 [n, n_embd], causal, at the next positions."""
        if rows.ndim != 2 or rows.shape[1] != self.model.n_embd:
            raise ModelError(f"visual tokens are {list(rows.shape)}, the language model takes [n, {self.model.n_embd}]")
        self._check_room(len(rows))
        for start in range(0, len(rows), self.n_batch):
            part = np.ascontiguousarray(rows[start : start + self.n_batch], dtype=np.float32)
            batch, keep = self._batch(len(part), False)
            batch.embd = part.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            self._decode(batch, len(part))
            self.n_visual += len(part)
            del keep
            if progress:
                progress(start + len(part), len(rows))

    def _batch(self, n: int, logits_last: bool) -> tuple[Any, tuple[Any, ...]]:
        """A llama_batch of n rows at the next positions, and the arrays it points into."""
        pos = np.arange(self.n_past, self.n_past + n, dtype=np.int32)
        flags = np.zeros(n, dtype=np.int8)
        flags[-1] = logits_last
        batch = llama.llama_batch()
        batch.n_tokens = n
        batch.pos = pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.logits = flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return batch, (pos, flags)  # n_seq_id and seq_id stay null: sequence 0

    def logits(self) -> NDArray[np.float32]:
        """float32 [n_vocab], a copy of the logits after the last decoded token."""
        pointer = llama.llama_get_logits_ith(self.handle, -1)
        if not pointer:
            raise NativeError("no logits: nothing was decoded with logits=True")
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,)).copy()

    def decode_chunk(self, mtmd_context: Any, chunk: Any, rows: NDArray[np.float32]) -> None:
        """Appends an encoded mtmd chunk, for models whose positions or masks only mtmd knows (M-RoPE, Gemma)."""
        n = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        self._check_room(n)
        after = llama.llama_pos(0)
        embd = np.ascontiguousarray(rows, dtype=np.float32)
        pointer = embd.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        _logs.clear()
        result = mtmd.mtmd_helper_decode_image_chunk(
            mtmd_context, self.handle, chunk, pointer, self.n_past, 0, self.n_batch, ctypes.byref(after),
            mtmd.mtmd_helper_post_decode_callback(), None,
        )  # fmt: skip
        if result != 0:
            raise NativeError(f"mtmd could not decode a media chunk ({result}): {_logs.last_error()}")
        self.n_past = after.value
        self.n_cells += n
        self.n_visual += n

    def mark(self) -> Mark:
        return Mark(self.n_past, self.n_cells, self.n_visual)

    def rewind(self, mark: Mark) -> None:
        """Forgets everything after `mark`."""
        memory = llama.llama_get_memory(self.handle)
        if not llama.llama_memory_seq_rm(memory, 0, mark.n_past, -1):
            raise NativeError(f"this model's memory cannot go back to position {mark.n_past}; start over with /reset")
        self.n_past, self.n_cells, self.n_visual = mark.n_past, mark.n_cells, mark.n_visual

    def fits(self, n_text: int, n_visual: int) -> bool:
        """Whether so many more tokens fit."""
        return self.n_cells + n_text + n_visual <= self.n_ctx

    def larger(self, n_ctx: int, n_visual: int) -> Context:
        """An empty context of the same kind with n_ctx cells, n_visual of them for more visual tokens."""
        return Context(self.model, n_ctx)

    def state(self) -> bytearray:
        """The KV cache and its positions; `mark` says what they hold."""
        data = bytearray(llama.llama_state_seq_get_size(self.handle, 0))
        n_got = llama.llama_state_seq_get_data(self.handle, _bytes_of(data), len(data), 0)
        if n_got == 0:
            raise NativeError("the conversation's KV cache cannot be read; start over with /reset")
        del data[n_got:]
        return data

    def restore(self, state: bytearray, mark: Mark) -> None:
        """Takes the state of a context of the same kind into an empty one; it must fit."""
        if llama.llama_state_seq_set_data(self.handle, _bytes_of(state), len(state), 0) == 0:
            raise NativeError("a saved KV cache does not fit this context: other layers or KV types, or too few cells")
        self.n_past, self.n_cells, self.n_visual = mark.n_past, mark.n_cells, mark.n_visual

    def copy_from(self, other: Context) -> None:
        """Takes over another context's contents; they must fit."""
        self.restore(other.state(), other.mark())

    def close(self) -> None:
        if self._ctx:
            llama.llama_free(self._ctx)
            self._ctx = None
