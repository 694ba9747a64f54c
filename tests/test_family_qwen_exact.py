"""Off means off, for Qwen-VL: bit for bit what the unpatched llama.cpp gives for the same rows, ids and batches.

Rows of the vision tower; logits behind text; logits behind text, a picture and text as one batch of embeddings, which
is how our prefill computes, and of tokens decoded after it. AIM_STOCK_LIB as in test_exact.py, whose other side this
file is, too, run as a program.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thorough import few

N_CTX, N_BATCH, ANSWER = 256, 512, [7, 8, 9]
TEXT = [(11 * i + 5) % 100 for i in range(60)]
BEFORE, AFTER = TEXT[:9], TEXT[9:16]


def rotary_ids(rows: int, cols: int) -> np.ndarray:
    """Of BEFORE, a picture and AFTER, int32 [n, 3]."""
    n = len(BEFORE)
    text = [np.arange(k)[:, None].repeat(3, 1) for k in (n, len(AFTER))]
    grid = np.indices((1, rows, cols)).reshape(3, -1).T + n
    return np.concatenate([text[0], grid, text[1] + n + max(rows, cols)]).astype(np.int32)


# --- our side ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=few(("qwen2_5_vl", "qwen3_vl", "qwen2_vl"), 2))
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The converted checkpoint, and what the other side gets: a picture and embeddings."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import gguf
    from family_checkpoints import picture
    from qwen_case import UNITS, converted

    pair = converted(request.param, tmp_path_factory)
    side = UNITS[request.param]
    (table,) = [t.data for t in gguf.GGUFReader(pair / "model.gguf").tensors if t.name == "token_embd.weight"]
    data = tmp_path_factory.mktemp("exact") / f"{request.param}.npz"
    np.savez(data, picture=np.asarray(picture(4 * side, 6 * side)), table=table, rows=4, cols=6)
    return pair, data


def ours(pair: Path, given: Any, *, flash_attn: bool) -> dict[str, np.ndarray]:
    from aim_local import LoadConfig
    from aim_local.models.base import TowerFile
    from aim_local.models.text import TextModel
    from aim_local.native.llama import LlamaContext
    from aim_local.native.staged import ROW_TOKEN, ROW_VISUAL, StagedContext, StagePlan
    from aim_local.native.visual import TileEncoder

    config = LoadConfig(n_threads=1, flash_attn=flash_attn, vision_precision="exact", prefill_precision="exact")
    text = TextModel(pair / "model.gguf", config)
    tower = TowerFile.read(pair / "mmproj.gguf", text, weights=True).open()
    assert tower
    rows = TileEncoder(tower.handle, 1).encode(given["picture"])
    plain = LlamaContext(text.llama, N_CTX, text.options)
    said = []
    for i, ids in enumerate([TEXT, *([token] for token in ANSWER)]):
        plain.decoder.tokens(ids, 0 if i == 0 else len(TEXT) + i - 1, logits=True)
        said.append(plain.decoder.logits())
    kinds = [*[ROW_TOKEN] * len(BEFORE), *[ROW_VISUAL] * len(rows), *[ROW_TOKEN] * len(AFTER)]
    tokens = [*BEFORE, *[0] * len(rows), *AFTER]
    turned = rotary_ids(int(given["rows"]), int(given["cols"]))
    options = {"n_ubatch": N_BATCH, "n_batch": N_BATCH, "n_threads": 1, "flash_attn": flash_attn}
    with StagedContext(text.llama.handle, StagePlan((0,), (len(kinds) + 9,)), **options) as ctx:
        seen = [ctx.prefill(kinds, tokens, rows, [len(rows)], rotary=turned)]
        seen += [ctx.decode(token) for token in ANSWER]
    for owner in (plain, tower, text):
        owner.close()
    return {"rows": rows, "said": np.stack(said), "seen": np.stack(seen)}


@pytest.mark.parametrize("flash_attn", [True, False], ids=["flash", "plain"])
def test_is_what_llama_cpp_gives(files: tuple[Any, Path], flash_attn: bool, tmp_path: Path) -> None:
    from aim_local.native.installed import bindings_folder
    from aim_local.native.library import LIB_FOLDER

    pair, data = files
    lib, out = os.environ.get("AIM_STOCK_LIB") or str(LIB_FOLDER), tmp_path / "stock.npz"
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": lib, "MTMD_CPP_LIB": lib}
    env["PYTHONPATH"] = os.pathsep.join([str(bindings_folder()), *filter(None, sys.path)])
    command = [sys.executable, __file__, pair / "model.gguf", pair / "mmproj.gguf", data, out, str(int(flash_attn))]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-1000:]
    want, got = dict(np.load(out)), ours(pair, np.load(data), flash_attn=flash_attn)
    apart = {k: float(np.abs(got[k] - want[k]).max() / np.abs(want[k]).max()) for k in want}
    print(pair.name, apart)
    assert [k for k in want if got[k].tobytes() != want[k].tobytes()] == []


# --- the other library ------------------------------------------------------------------------------------------------


def main(model_path: str, tower_path: str, data: str, out: str, flash_attn: str) -> None:
    llama = importlib.import_module("llama_cpp.llama_cpp")
    from aim_local.native.stock import StockLibrary, StockOptions

    given, library = np.load(data), StockLibrary()  # keeps its log's callback
    model = library.load(model_path, StockOptions(1, 0, 1, 1, N_BATCH, N_BATCH))
    rows = encoded(model._model, tower_path, given["picture"], int(flash_attn), llama)
    said, seen = (
        answered(llama, model._model, int(flash_attn), first)
        for first in (None, (embeddings(given, rows), rotary_ids(int(given["rows"]), int(given["cols"]))))
    )
    np.savez(out, rows=rows, said=said, seen=seen)


def embeddings(given: Any, rows: np.ndarray) -> np.ndarray:
    """Of BEFORE, the picture and AFTER, [n, width]; behind a token's own there is nothing to add."""
    text = [
        np.pad(given["table"][ids], ((0, 0), (0, rows.shape[1] - given["table"].shape[1]))) for ids in (BEFORE, AFTER)
    ]
    return np.ascontiguousarray(np.concatenate([text[0], rows, text[1]]), np.float32)


def answered(llama: Any, model: Any, flash_attn: int, first: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Logits after TEXT, or after embeddings with their ids, and after each token of ANSWER."""
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = N_CTX, N_BATCH, N_BATCH, 1
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = flash_attn
    ctx = llama.llama_init_from_model(model, params)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    logits = []

    def decode(batch: Any) -> None:
        assert llama.llama_decode(ctx, batch) == 0
        pointer = llama.llama_get_logits_ith(ctx, -1)
        logits.append(np.ctypeslib.as_array(pointer, shape=(n_vocab,)).copy())

    if first is None:
        text = (ctypes.c_int32 * len(TEXT))(*TEXT)  # a name: the batch holds its address only
        decode(llama.llama_batch_get_one(text, len(TEXT)))
        at = len(TEXT)
    else:
        embd, ids = first
        pos = np.concatenate([ids.T.ravel(), np.zeros(len(ids), np.int32)]).astype(np.int32)
        wanted = np.zeros(len(ids), np.int8)
        wanted[-1] = 1
        batch = llama.llama_batch()
        batch.n_tokens = len(ids)
        batch.embd = embd.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch.pos = pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch.logits = wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        decode(batch)
        at = int(ids[-1].max()) + 1
    for i, token in enumerate(ANSWER):
        one, pos = (ctypes.c_int32 * 1)(token), np.array([at + i] * 3 + [0], np.int32)
        batch = llama.llama_batch_get_one(one, 1)
        batch.pos = pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        decode(batch)
    llama.llama_free(ctx)
    return np.stack(logits)


def encoded(model: Any, tower_path: str, pixels: np.ndarray, flash_attn: int, llama: Any) -> np.ndarray:
    """Rows of a picture that needs no resizing."""
    mtmd = importlib.import_module("llama_cpp.mtmd_cpp")
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.warmup, params.print_timings, params.n_threads = False, False, False, 1
    params.flash_attn_type = flash_attn
    tower = mtmd.mtmd_init_from_file(tower_path.encode(), model, params)
    height, width = pixels.shape[:2]
    bitmap = mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks, marker = mtmd.mtmd_input_chunks_init(), mtmd.mtmd_default_marker()
    request = mtmd.mtmd_input_text(marker, len(marker), False, True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(tower, chunks, ctypes.byref(request), bitmaps, 1) == 0
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) == 1:  # an image
            assert mtmd.mtmd_encode_chunk(tower, chunk) == 0
            shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), llama.llama_model_n_embd_inp(model))
            return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(tower), shape=shape).copy()
    raise AssertionError("no picture among the chunks")


if __name__ == "__main__":
    main(*sys.argv[1:])
