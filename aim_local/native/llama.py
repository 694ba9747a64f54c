"""A language model natively: its vocabulary, and contexts that decode tokens and embedding rows.

Plain Python values in and out. Which contexts are made, what their cells hold and what a prompt looks like is decided
above. A decode that fails or is stopped leaves the context as it was before.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, NativeError
from ..store.gguf_files import parts
from . import forking, kernels, log
from .binding import type_number
from .callbacks import as_callback
from .created import created, interrupted
from .finite import finite_logits
from .library import llama
from .outcome import NO_ROOM
from .owned import Owned
from .room import check_room, file_bytes, graph_bytes
from .rpc import RemoteDevices
from .stop import StopHook

Rows = NDArray[np.float32]
FLASH_ATTN = {"auto": -1, False: 0, True: 1}
N_CTX_STEP = 256  # llama.cpp pads a context to this many cells
_ABORTED, _NO_MEMORY = 2, -2  # llama_decode: the abort callback said so; a graph got no buffers


@dataclass(frozen=True)
class ContextOptions:
    """How contexts compute. type_k, type_v: ggml types by name. flash_attn: "auto", True or False.

    precision: of a prefill, see kernels.compute_with.
    """

    n_ubatch: int
    n_threads: int
    type_k: str
    type_v: str
    flash_attn: str | bool
    precision: str


class LlamaModel:
    """A loaded llama_model. `close()` frees it, and first what was made from it.

    weights=False reads the vocabulary and sizes only: contexts made from it know how large they would be, and hold
    nothing. Nothing can be computed with them. stop: ends the work of every context made from it.
    remote: where the last n_gpu_layers are instead of a GPU of this machine; it is closed with the model.
    """

    def __init__(
        self, path: Path, n_gpu_layers: int, *, weights: bool = True, remote: RemoteDevices | None = None
    ) -> None:
        self.path, self.stop, self._remote = path, StopHook(), remote
        if remote:
            self.stop.check_lost = remote.check
        try:
            model = self._load(n_gpu_layers, weights)
        except BaseException:
            if remote:
                remote.close()
            raise
        self.owned = Owned("the model", model, partial(_free_model, remote), holder=self)
        self.n_vocab = int(llama.llama_vocab_n_tokens(self.vocab))
        self.n_embd = int(llama.llama_model_n_embd_inp(model))
        self.n_layer = int(llama.llama_model_n_layer(model))
        self.n_ctx_train = int(llama.llama_model_n_ctx_train(model))
        self.n_window = int(llama.llama_model_n_swa(model))  # tokens that layers with a window see, 0 without
        # some layers hold one state for all rows they have seen, which cannot go back
        self.is_recurrent = bool(llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model))

    def _load(self, n_gpu_layers: int, weights: bool) -> Any:
        forking.check()
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 999 if n_gpu_layers < 0 else n_gpu_layers
        if not weights:
            params.no_alloc, params.load_mode = True, llama.LLAMA_LOAD_MODE_NONE
        handles = [device.handle for device in self._remote.devices] if self._remote else []
        devices = (ctypes.c_void_p * (len(handles) + 1))(*handles)  # null at its end
        if handles:
            params.devices = ctypes.addressof(devices)
        check_room(file_bytes(parts(self.path)) if weights else 0, 0)
        go_on = as_callback(llama.llama_progress_callback, lambda progress, data: not interrupted(), failed=False)
        params.progress_callback = go_on
        model = created(
            lambda: llama.llama_model_load_from_file(os.fsencode(self.path), params), llama.llama_model_free
        )
        try:
            self.stop.check_done()
        except BaseException:
            if model:
                llama.llama_model_free(model)
            raise
        if not model:
            raise ModelError(f"{self.path} does not load: {log.last_error()}")
        return model

    @property
    def handle(self) -> Any:
        """Raises ClosedError."""
        return self.owned.pointer

    @property
    def vocab(self) -> Any:
        """In the model's turn. Raises ClosedError."""
        return llama.llama_model_get_vocab(self.handle)

    @contextmanager
    def _using_vocab(self) -> Iterator[Any]:
        with self.owned.using() as model:
            yield llama.llama_model_get_vocab(model)

    def tokenize(self, text: str, *, start: bool, special: bool = True) -> list[int]:
        """Token ids of `text`. start: it begins the prompt, so BOS goes in front where the model wants one.

        No EOS goes behind it where the model wants that: the prompt goes on, or the answer follows.
        Raises ModelError where the model has no vocabulary; llama.cpp would end the process.
        """
        data = text.encode("utf-8")
        n = len(data) + 16
        buffer = (ctypes.c_int32 * n)()
        with self._using_vocab() as vocab:
            if llama.llama_vocab_type(vocab) == llama.LLAMA_VOCAB_TYPE_NONE:
                raise ModelError(f"{self.path}: has no vocabulary to read and write text with; take another model")
            found = llama.llama_tokenize(vocab, data, len(data), buffer, n, start, special)
            if found < 0:
                buffer = (ctypes.c_int32 * -found)()
                found = llama.llama_tokenize(vocab, data, len(data), buffer, -found, start, special)
            tokens = list(buffer[:found])
            if start and llama.llama_vocab_get_add_eos(vocab) and tokens[-1:] == [llama.llama_vocab_eos(vocab)]:
                del tokens[-1]
        return tokens

    @cached_property
    def special_names(self) -> tuple[str, ...]:
        """Texts of the tokens that `tokenize` finds with special=True alone."""
        return self._names(llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN)

    @cached_property
    def added_names(self) -> tuple[str, ...]:
        """Texts of the other tokens that `tokenize` finds before it looks at anything else."""
        return self._names(llama.LLAMA_TOKEN_ATTR_USER_DEFINED)

    def _names(self, kinds: int) -> tuple[str, ...]:
        with self._using_vocab() as vocab:
            found = [i for i in range(self.n_vocab) if llama.llama_vocab_get_attr(vocab, i) & kinds]
        return tuple(filter(None, map(self.token_text, found)))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """UTF-8 bytes of one token, possibly part of a character."""
        buffer = ctypes.create_string_buffer(64)
        with self._using_vocab() as vocab:
            n = llama.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, special)
            if n < 0:
                buffer = ctypes.create_string_buffer(-n)
                n = llama.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:n]

    def token_text(self, token: int) -> str:
        """A token's text with special tokens spelled out, "" for none (-1)."""
        return "" if token < 0 else self.piece(token, special=True).decode("utf-8", "replace")

    @property
    def bos_text(self) -> str:
        with self._using_vocab() as vocab:
            return self.token_text(llama.llama_vocab_bos(vocab))

    @property
    def adds_bos(self) -> bool:
        """Whether `tokenize` puts that token in front of what begins a prompt."""
        with self._using_vocab() as vocab:
            return bool(llama.llama_vocab_get_add_bos(vocab))

    @property
    def eos_text(self) -> str:
        with self._using_vocab() as vocab:
            return self.token_text(llama.llama_vocab_eos(vocab))

    def is_eog(self, token: int) -> bool:
        """Whether `token` ends a turn."""
        with self._using_vocab() as vocab:
            return bool(llama.llama_vocab_is_eog(vocab, token))

    def close(self) -> None:
        self.owned.close()


def _free_model(remote: RemoteDevices | None, model: Any) -> None:
    llama.llama_model_free(model)
    if remote:
        remote.close()


def padded_cells(n: int) -> int:
    """Cells a context really has when n are asked for."""
    return -(-n // N_CTX_STEP) * N_CTX_STEP


class Decoder:
    """Tokens and rows into sequence 0 of a context that somebody else owns. Raises ClosedError when that is closed."""

    def __init__(self, model: LlamaModel, context: Owned) -> None:
        self._model, self._owned = model, context
        self.n_batch = int(llama.llama_n_batch(context.pointer))

    @property
    def _ctx(self) -> Any:
        return self._owned.pointer

    def tokens(self, tokens: Sequence[int], position: int, *, logits: bool) -> None:
        """At most n_batch tokens at consecutive positions; with `logits`, those after the last one can be read."""
        ids = np.asarray(tokens, dtype=np.int32)
        batch, keep = _batch(len(ids), position, logits)
        batch.token = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self._decode(batch, position)
        del keep

    def rows(self, rows: Rows, position: int, ids: NDArray[np.int32] | None = None) -> None:
        """At most n_batch embedding rows, float32 [n, n_embd], causal, at consecutive positions.

        ids: int32 [n, 3], time, row and column of each, for models whose rows have several rotary ids (M-RoPE).
        """
        data = np.ascontiguousarray(rows, dtype=np.float32)
        batch, keep = _batch(len(data), position, False)
        turned = None if ids is None else np.concatenate([ids.T.reshape(-1), np.zeros(len(ids), np.int32)])
        if turned is not None:
            batch.pos = turned.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.embd = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self._decode(batch, position)
        del keep, turned

    def rows_together(self, rows: Rows, position: int) -> None:
        """Embedding rows, float32 [n, n_embd], that attend to all before them and to each other, at most n_batch."""
        llama.llama_set_causal_attn(self._ctx, False)
        try:
            self.rows(rows, position)
        finally:
            llama.llama_set_causal_attn(self._ctx, True)

    def _decode(self, batch: Any, position: int) -> None:
        check_room()
        log.clear()
        try:
            status = llama.llama_decode(self._ctx, batch)
        except BaseException:  # a Ctrl-C that came too late to stop it
            self.truncate(position)
            raise
        if status == 0:
            return
        self.truncate(position)
        self._model.stop.check_done()
        if status == _ABORTED:
            self._model.stop.reraise()
        if status == _NO_MEMORY:
            raise NativeError(NO_ROOM)
        raise NativeError(f"llama_decode failed with {status} at position {position}: {log.last_error()}")

    def logits(self) -> Rows:
        """float32 [n_vocab], a copy of the logits after the last decoded token. Raises ModelError for NaN."""
        pointer = llama.llama_get_logits_ith(self._ctx, -1)  # waits for them
        if not pointer:
            self._model.stop.check_done()
            raise NativeError("no logits: nothing was decoded with logits=True")
        logits = np.ctypeslib.as_array(pointer, shape=(self._model.n_vocab,)).copy()
        return finite_logits(logits, self._model.path, stop=self._model.stop)

    def truncate(self, position: int) -> bool:
        """Forgets everything from `position` on. False where this model's memory cannot go back."""
        return bool(llama.llama_memory_seq_rm(llama.llama_get_memory(self._ctx), 0, position, -1))

    def last_position(self) -> int:
        """The last position of what is held, counted or not; -1 where nothing is."""
        return int(llama.llama_memory_seq_pos_max(llama.llama_get_memory(self._ctx), 0))

    def first_position(self) -> int:
        """The first position that all layers hold; -1 where nothing is. A saved state lacks what no window reaches."""
        return int(llama.llama_memory_seq_pos_min(llama.llama_get_memory(self._ctx), 0))

    def wait(self) -> None:
        """Until the device is done: a GPU may still be at work when a decode returns."""
        llama.llama_synchronize(self._ctx)


def _batch(n: int, position: int, logits_last: bool) -> tuple[Any, tuple[Any, ...]]:
    """A llama_batch of n rows from `position` on, and the arrays it points into."""
    pos = np.arange(position, position + n, dtype=np.int32)
    flags = np.zeros(n, dtype=np.int8)
    flags[-1] = logits_last
    batch = llama.llama_batch()
    batch.n_tokens = n
    batch.pos = pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch.logits = flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    return batch, (pos, flags)  # n_seq_id and seq_id stay null: sequence 0


class LlamaContext:
    """A llama_context of one sequence with a plain KV cache. Raises NativeError. `close()` frees it."""

    def __init__(self, model: LlamaModel, n_ctx: int, options: ContextOptions) -> None:
        check_room(graph_bytes(model.n_layer))
        owner = model.owned
        ctx = created(lambda: llama.llama_init_from_model(owner.pointer, _params(n_ctx, options)), llama.llama_free)
        if not ctx:
            model.stop.check_done()
            raise NativeError(log.last_error())
        self.owned = Owned("the conversation's context", ctx, llama.llama_free, owner=owner, holder=self)
        self._stop = model.stop
        model.stop.attach_context(ctx)
        kernels.compute_with(ctx, options.precision)
        self.n_ctx = int(llama.llama_n_ctx(ctx))
        self.decoder = Decoder(model, self.owned)

    @property
    def handle(self) -> Any:
        """Raises ClosedError."""
        return self.owned.pointer

    def state(self) -> bytearray:
        """The KV cache and its positions. Raises NativeError."""
        return self._state(0)

    def recurrent_state(self) -> bytes:
        """That of the recurrent layers alone. Raises NativeError."""
        return bytes(self._state(llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY))

    def _state(self, flags: int) -> bytearray:
        data = bytearray(llama.llama_state_seq_get_size_ext(self.handle, 0, flags))
        n_got = llama.llama_state_seq_get_data_ext(self.handle, _bytes_of(data), len(data), 0, flags)
        self._stop.check_done()
        if n_got == 0:
            raise NativeError("the conversation's KV cache cannot be read; start a new conversation")
        del data[n_got:]
        return data

    def restore(self, state: bytearray) -> None:
        """Takes the state of a context of the same kind into an empty one. Raises NativeError."""
        self._restore(state, 0)

    def restore_recurrent(self, state: bytes) -> None:
        """Takes what `recurrent_state` gave; the KV cache stays as it is. Raises NativeError."""
        self._restore(bytearray(state), llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)

    def _restore(self, state: bytearray, flags: int) -> None:
        n_set = llama.llama_state_seq_set_data_ext(self.handle, _bytes_of(state), len(state), 0, flags)
        self._stop.check_done()
        if n_set != len(state):
            raise NativeError("a saved KV cache does not fit this context: other layers or KV types, or too few cells")

    def close(self) -> None:
        self.owned.close()


def _params(n_ctx: int, options: ContextOptions) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = options.n_ubatch  # one ubatch a call: progress and Ctrl-C get a turn
    params.n_seq_max = 1
    params.n_threads = params.n_threads_batch = options.n_threads
    params.type_k, params.type_v = (type_number(t) for t in (options.type_k, options.type_v))
    params.flash_attn_type = FLASH_ATTN[options.flash_attn]
    params.no_perf = True
    return params


def _bytes_of(data: bytearray) -> Any:
    """`data` as a C array, not copied."""
    return (ctypes.c_uint8 * len(data)).from_buffer(data)
