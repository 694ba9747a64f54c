"""An unpatched llama.cpp, in a process of its own: one process can load one llama.cpp.

PYTHONPATH says where the bindings are, LLAMA_CPP_LIB_PATH and MTMD_CPP_LIB for which library. Imports nothing that
loads ours.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NativeError

_IMAGE = 1  # enum mtmd_input_chunk_type


@dataclass(frozen=True)
class StockOptions:
    """type_k, type_v: numbers of ggml types. Flash attention is on: llama.cpp's best flags."""

    n_threads: int
    n_gpu_layers: int
    type_k: int
    type_v: int
    n_batch: int
    n_ubatch: int


class StockLibrary:
    """The library and, once loaded, a model in it."""

    def __init__(self) -> None:
        self._llama: Any = importlib.import_module("llama_cpp.llama_cpp")  # loads the library
        self._quiet = self._llama.llama_log_callback(lambda *_: None)  # kept: callbacks die with their last reference
        self._llama.llama_log_set(self._quiet, None)
        load_backends(self._llama._lib)
        self._llama.llama_backend_init()

    @property
    def is_patched(self) -> bool:
        return hasattr(self._llama._lib, "aim_llama_patch_version")

    def load(self, path: str, options: StockOptions) -> StockModel:
        """Raises NativeError."""
        params = self._llama.llama_model_default_params()
        params.n_gpu_layers = options.n_gpu_layers
        model = self._llama.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise NativeError(f"{path} does not load in the unpatched library")
        return StockModel(self._llama, model, options)


def load_backends(lib: ctypes.CDLL) -> None:
    """Those that are files of their own, as in llama.cpp's released binaries; others come with libggml."""
    load = getattr(lib, "ggml_backend_load_all_from_path", None)
    if load is not None and not hasattr(lib, "ggml_backend_cpu_reg"):
        load(os.fsencode(os.environ["LLAMA_CPP_LIB_PATH"]))


class StockModel:
    """Lives as long as the process."""

    def __init__(self, llama: Any, model: Any, options: StockOptions) -> None:
        self._llama, self._model, self.options = llama, model, options
        self.n_embd = int(llama.llama_model_n_embd(model))

    def tower(self, path: str) -> StockTower:
        """A mmproj beside this model. Raises NativeError."""
        return StockTower(self._model, path, self.options)

    def context(self, n_ctx: int) -> StockContext:
        """Raises NativeError."""
        params, options = self._llama.llama_context_default_params(), self.options
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, options.n_batch, options.n_ubatch
        params.n_threads = params.n_threads_batch = options.n_threads
        params.type_k, params.type_v = options.type_k, options.type_v
        params.flash_attn_type, params.n_outputs_max = 1, 1
        ctx = self._llama.llama_init_from_model(self._model, params)
        if not ctx:
            raise NativeError(f"the unpatched library cannot make a context of {n_ctx} tokens")
        return StockContext(self._llama, ctx)


class StockContext:
    """Sequence 0 of a context. `close()` frees it."""

    def __init__(self, llama: Any, ctx: Any) -> None:
        self._llama, self._ctx = llama, ctx
        self.n_ctx = int(llama.llama_n_ctx(ctx))

    def decode(self, ids: Sequence[int]) -> None:
        """Appends at most n_batch tokens; the last one's logits are computed. Raises NativeError."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        status = self._llama.llama_decode(self._ctx, self._llama.llama_batch_get_one(tokens, len(ids)))
        if status != 0:
            raise NativeError(f"llama_decode failed with {status} in the unpatched library")

    def truncate(self, n_past: int) -> None:
        self._llama.llama_memory_seq_rm(self._llama.llama_get_memory(self._ctx), 0, n_past, -1)

    def wait(self) -> None:
        """Until the device is done."""
        self._llama.llama_synchronize(self._ctx)

    def close(self) -> None:
        self._llama.llama_free(self._ctx)


class StockTower:
    """A vision tower as the unpatched library runs it. Lives as long as the process."""

    def __init__(self, model: Any, path: str, options: StockOptions) -> None:
        self._mtmd: Any = importlib.import_module("llama_cpp.mtmd_cpp")
        params = self._mtmd.mtmd_context_params_default()
        params.use_gpu, params.n_threads = options.n_gpu_layers > 0, options.n_threads
        params.print_timings = params.warmup = False
        self._ctx = self._mtmd.mtmd_init_from_file(os.fsencode(path), model, params)
        if not self._ctx:
            raise NativeError(f"{path} does not load in the unpatched library")

    def encode(self, tile: NDArray[np.uint8], width: int) -> tuple[NDArray[np.float32], float]:
        """uint8 [h, w, 3], as the tower takes it -> rows float32 [n, width], and the milliseconds that took.

        Of a picture that mtmd cuts into several the first part. What mtmd does to the picture before the tower is not
        in the time. Raises NativeError.
        """
        chunks = self._mtmd.mtmd_input_chunks_init()
        try:
            self._tokenize(chunks, np.ascontiguousarray(tile))
            every = [
                self._mtmd.mtmd_input_chunks_get(chunks, i) for i in range(self._mtmd.mtmd_input_chunks_size(chunks))
            ]
            chunk = next(one for one in every if self._mtmd.mtmd_input_chunk_get_type(one) == _IMAGE)
            start = time.perf_counter()
            if self._mtmd.mtmd_encode_chunk(self._ctx, chunk) != 0:
                raise NativeError("mtmd_encode_chunk failed in the unpatched library")
            ms = (time.perf_counter() - start) * 1e3
            n = self._mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            return np.ctypeslib.as_array(self._mtmd.mtmd_get_output_embd(self._ctx), shape=(n, width)).copy(), ms
        finally:
            self._mtmd.mtmd_input_chunks_free(chunks)

    def _tokenize(self, chunks: Any, tile: NDArray[np.uint8]) -> None:
        """One picture and no text."""
        mtmd = self._mtmd
        pixels = tile.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd.mtmd_bitmap_init(tile.shape[1], tile.shape[0], pixels)
        try:
            text = mtmd.mtmd_default_marker()
            request = mtmd.mtmd_input_text(text, len(text), False, True)
            pictures = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if mtmd.mtmd_tokenize(self._ctx, chunks, ctypes.byref(request), pictures, 1) != 0:
                raise NativeError("mtmd_tokenize failed in the unpatched library")
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
