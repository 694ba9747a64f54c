"""Off means off: with exact arithmetic tower and language model give, bit for bit, what the unpatched llama.cpp gives.

AIM_STOCK_LIB names a folder with the unpatched libraries; without it our own stand in for them, called as if they were.
One process can load one llama.cpp: the other side is this file, run as a program.
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

STOCK_LIB = os.environ.get("AIM_STOCK_LIB")
SIDE, N_CTX, N_PROMPT = 32, 256, 150
STEPS = [[(11 * i + 5) % 100 for i in range(N_PROMPT)], [7], [8], [9]]  # a prefill, then tokens one by one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower that both libraries know beside a language model, of half floats and quantised."""
    pytest.importorskip("transformers")
    from checkpoints import Shape, write_onevision
    from test_foreign import as_janus

    from aim_local.convert import ConvertConfig, convert

    root = tmp_path_factory.mktemp("exact")
    shape = Shape(grid=8, n_text=3, d_vision=64, d_text=128, ff_text=256, seed=5)
    source = write_onevision(root / "hf", shape)
    for kind, config in {"f16": ConvertConfig("f16", "f16"), "q8_0": ConvertConfig("q8_0", "q8_0")}.items():
        convert(source, root / kind, config)
        as_janus(root / kind / "mmproj.gguf", root / f"{kind}.gguf")
    return root


def picture() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def stock(folder: Path, kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """Rows of a picture and logits by the other library."""
    from aim_local.native.installed import bindings_folder
    from aim_local.native.library import LIB_FOLDER

    lib, out = STOCK_LIB or str(LIB_FOLDER), folder / f"stock-{kind}.npz"
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": lib, "MTMD_CPP_LIB": lib}
    env["PYTHONPATH"] = os.pathsep.join([str(bindings_folder()), *filter(None, sys.path)])
    files = [folder / kind / "model.gguf", folder / f"{kind}.gguf", out]
    done = subprocess.run([sys.executable, __file__, *map(str, files)], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(out))


def ours(folder: Path, kind: str, precision: str) -> dict[str, np.ndarray[Any, Any]]:
    """The same by our runtime, as a LoadConfig sets it up."""
    from aim_local import LoadConfig
    from aim_local.models.base import TowerFile
    from aim_local.models.text import TextModel
    from aim_local.native.llama import LlamaContext
    from aim_local.native.mtmd import Chunks, ImageChunk, encode_chunk

    config = LoadConfig(n_threads=1, flash_attn=True, vision_precision=precision, prefill_precision=precision)
    text = TextModel(folder / kind / "model.gguf", config)
    tower = TowerFile.read(folder / f"{kind}.gguf", text, weights=True).open()
    assert tower
    chunks = Chunks(tower, [picture()], is_video=False)
    (chunk,) = [c for c in chunks.chunks if isinstance(c, ImageChunk)]
    rows = encode_chunk(tower, chunk, text.n_embd)
    context = LlamaContext(text.llama, N_CTX, text.options)
    logits = []
    for i, ids in enumerate(STEPS):
        context.decoder.tokens(ids, 0 if i == 0 else N_PROMPT + i - 1, logits=True)
        logits.append(context.decoder.logits().copy())
    for owner in (chunks, context, tower, text):
        owner.close()
    return {"rows": rows, "logits": np.stack(logits)}


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_exact_is_what_llama_cpp_gives(folder: Path, kind: str) -> None:
    from aim_local.native import kernels

    want, exact, auto = stock(folder, kind), ours(folder, kind, "exact"), ours(folder, kind, "auto")
    for name, other in want.items():
        differences = [float(np.abs(got[name] - other).max() / np.abs(other).max()) for got in (exact, auto)]
        print(f"{kind} {name}: exact {differences[0]:.2g}, auto {differences[1]:.2g} of the largest value")
        assert np.abs(other).max() > 0
        assert exact[name].tobytes() == other.tobytes(), f"{name}: off by {differences[0]}"
        assert (differences[1] == 0) == (not kernels.kernels()), f"auto is exact in {name}: nothing is tested"
        assert differences[1] < 0.1


@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_stats_tell_which_kernels_ran(folder: Path, precision: str) -> None:
    from aim_local import GenerateConfig, LoadConfig, VisionLLM
    from aim_local.native import kernels

    config = LoadConfig(n_threads=1, vision_precision=precision, prefill_precision=precision)
    with VisionLLM.load(folder / "f16", config=config) as llm:
        seen, read = (llm.generate("What?", m, generate=GenerateConfig(max_tokens=1)).stats for m in ([picture()], []))
    assert seen.vision_kernels == kernels.described(kernels.resolved(precision))
    assert seen.prefill_kernels == read.prefill_kernels == kernels.described_prefill(precision)
    assert read.vision_kernels == ""
    assert ("llama.cpp's" in seen.vision_kernels) == (precision == "exact" or not kernels.kernels())


# --- the other library -----------------------------------------------------------------------------------------------


def main(model_path: str, tower_path: str, out: str) -> None:
    llama, mtmd = (importlib.import_module(f"llama_cpp.{name}") for name in ("llama_cpp", "mtmd_cpp"))
    from aim_local.native.stock import StockLibrary, StockOptions

    library = StockLibrary()  # keeps its log's callback
    model = library.load(model_path, StockOptions(1, 0, 1, 1, 512, 512))
    context = model.context(N_CTX)
    logits = []
    for ids in STEPS:
        context.decode(ids)
        pointer = llama.llama_get_logits_ith(context._ctx, -1)
        n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model._model))
        logits.append(np.ctypeslib.as_array(pointer, shape=(n_vocab,)).copy())
    context.close()

    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.warmup, params.print_timings, params.n_threads = False, False, False, 1
    params.flash_attn_type = 1
    tower = mtmd.mtmd_init_from_file(tower_path.encode(), model._model, params)
    pixels = picture()
    bitmap = mtmd.mtmd_bitmap_init(SIDE, SIDE, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks, marker = mtmd.mtmd_input_chunks_init(), mtmd.mtmd_default_marker()
    request = mtmd.mtmd_input_text(marker, len(marker), False, True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(tower, chunks, ctypes.byref(request), bitmaps, 1) == 0
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) == 1:  # an image
            assert mtmd.mtmd_encode_chunk(tower, chunk) == 0
            shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), llama.llama_model_n_embd(model._model))
            rows = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(tower), shape=shape).copy()
    np.savez(out, rows=rows, logits=np.stack(logits))


if __name__ == "__main__":
    main(*sys.argv[1:])
