"""llama.cpp on a language GGUF: tokens and logits, by its C functions alone."""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


def load_library() -> Any:
    """llama_cpp's C functions on the configured library, without its log."""
    from aim_local.native import log
    from aim_local.native.library import llama as lib

    log.clear()  # llama.cpp's log goes there, and not to the terminal
    lib.llama_backend_init()
    return SimpleNamespace(lib=lib)


@pytest.fixture(scope="module")
def llama() -> Any:
    return load_library()


def load(llama: Any, path: Path) -> Any:
    params = llama.lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.lib.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp does not load {path}"
    return model


def last_logits(llama: Any, path: Path, ids: list[int]) -> np.ndarray:
    """Logits after `ids`, float32 [n_vocab]."""
    lib, model = llama.lib, load(llama, path)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 64, 1, 1
    params.type_k = params.type_v = 0  # f32
    params.flash_attn_type = 0
    context = lib.llama_init_from_model(model, params)
    tokens = (ctypes.c_int32 * len(ids))(*ids)
    assert lib.llama_decode(context, lib.llama_batch_get_one(tokens, len(ids))) == 0
    n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(n_vocab,)).copy()
    lib.llama_free(context)
    lib.llama_model_free(model)
    return logits


def tokenize(llama: Any, path: Path, text: str) -> list[int]:
    lib, model = llama.lib, load(llama, path)
    raw, room = text.encode(), (ctypes.c_int32 * 500)()
    n = lib.llama_tokenize(lib.llama_model_get_vocab(model), raw, len(raw), room, 500, True, True)
    lib.llama_model_free(model)
    return list(room[:n])
