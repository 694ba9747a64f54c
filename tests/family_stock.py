"""The unpatched llama.cpp beside the runtime: rows of a picture's squares, and logits of text and rows, bit for bit.

AIM_STOCK_LIB names a folder with the unpatched libraries; without it our own stand in for them, called as if they were.
One process can load one llama.cpp: the other side is this file, run as a program.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
from contextlib import closing
from typing import Any

import numpy as np

STOCK_LIB = os.environ.get("AIM_STOCK_LIB")
N_CTX, N_BATCH = 1024, 512


def check_off_is_stock(case: Any, picture: Any, *, whole: bool) -> None:
    """A picture that no side resizes. whole: the runtime's own way through the prompt gives the same logits, too."""
    from family_case import OFF, planned, run
    from family_prompts import ASK, message

    from aim_local import LoadConfig, VisionLLM
    from aim_local.engine.contexts import open_plain
    from aim_local.models.pieces import TextPiece

    paths = case.llm.model.paths
    config = LoadConfig(n_threads=1, flash_attn=True, vision_precision="exact", prefill_precision="exact")
    with VisionLLM.load(paths.model, paths.mmproj, config=config) as llm:
        twin = type(case)(case.family, case.folder, case.loaded, llm)
        messages = [message("user", ("image",), ASK)]
        _, plan = planned(twin, messages, [picture], OFF)
        n_squares = sum(not isinstance(piece, TextPiece) for piece in plan.pieces)
        both = bool(getattr(llm.model.tower, "both_ways", False))
        texts = [piece.tokens for piece in plan.pieces if isinstance(piece, TextPiece)]
        want = stock(case, np.asarray(picture), texts, both_ways=both)
        ours = untouched_rows(llm, picture)
        assert len(want["rows"]) == n_squares
        equal = [a.tobytes() == b.tobytes() for a, b in zip(ours, want["rows"], strict=True)]
        print(f"{sum(equal)} of {len(equal)} squares are llama.cpp's bit for bit")
        assert all(equal[: max(1, len(equal) - 1)])  # the last is resized by either side, where there are several
        with closing(open_plain(llm.model, N_CTX)) as context:
            for i, ids in enumerate(texts):
                context.decode_tokens(ids, logits=i + 1 == len(texts))
                if i < len(want["rows"]):
                    decode = context.decoder.rows_together if both else context.decoder.rows
                    decode(want["rows"][i], context.n_past)
                    context._moved(len(want["rows"][i]))
            assert context.logits().tobytes() == want["logits"].tobytes()
        if whole:
            with run(twin, messages, [picture], OFF) as found:
                assert found.context.logits().tobytes() == want["logits"].tobytes()


def untouched_rows(llm: Any, picture: Any) -> list[np.ndarray[Any, Any]]:
    """Of a tower as llama.cpp loads it, without what a family does to it."""
    from aim_local.models.base import TowerFile
    from aim_local.native.visual import TileEncoder

    model = llm.model
    context = TowerFile.read(model.paths.mmproj, model.text, weights=True).open()
    assert context
    with closing(context):
        encoder = TileEncoder(context.handle, 1)
        return [encoder.encode(tile) for tile in model.tower.picture_tiles(np.asarray(picture))]


def stock(case: Any, picture: Any, texts: list[Any], *, both_ways: bool) -> dict[str, Any]:
    """rows: of each square, [n, n_embd]; logits: after the texts with those rows between them."""
    from aim_local.native.installed import bindings_folder
    from aim_local.native.library import LIB_FOLDER

    lib, given, out = STOCK_LIB or str(LIB_FOLDER), case.folder / "given.npz", case.folder / "stock.npz"
    np.savez(given, picture=picture, both_ways=both_ways, **{f"t{i}": np.int32(ids) for i, ids in enumerate(texts)})
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": lib, "MTMD_CPP_LIB": lib}
    env["PYTHONPATH"] = os.pathsep.join([str(bindings_folder()), *filter(None, sys.path)])
    paths = case.llm.model.paths
    command = [sys.executable, __file__, *map(str, (paths.model, paths.mmproj, given, out))]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(out))


# --- the other library -----------------------------------------------------------------------------------------------


def main(model_path: str, tower_path: str, given_path: str, out: str) -> None:
    llama, mtmd = (importlib.import_module(f"llama_cpp.{name}") for name in ("llama_cpp", "mtmd_cpp"))
    from aim_local.native.stock import StockLibrary, StockOptions

    given = dict(np.load(given_path))
    library = StockLibrary()  # keeps its log's callback
    model = library.load(model_path, StockOptions(1, 0, 1, 1, N_BATCH, N_BATCH))
    rows = encode(mtmd, model._model, tower_path, given.pop("picture"), model.n_embd)
    both_ways = bool(given.pop("both_ways"))
    context = model.context(N_CTX)
    texts, past = [given[f"t{i}"] for i in range(len(given))], 0
    for i, ids in enumerate(texts):
        past = decode(llama, context._ctx, past, ids=ids, logits=i + 1 == len(texts))
        if i < len(rows):
            llama.llama_set_causal_attn(context._ctx, not both_ways)
            past = decode(llama, context._ctx, past, rows=rows[i])
            llama.llama_set_causal_attn(context._ctx, True)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model._model))
    logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(context._ctx, -1), shape=(n_vocab,)).copy()
    np.savez(out, rows=np.stack(rows), logits=logits)


def decode(llama: Any, ctx: Any, past: int, ids: Any = None, rows: Any = None, logits: bool = False) -> int:
    n = len(ids) if rows is None else len(rows)
    pos, flags = np.arange(past, past + n, dtype=np.int32), np.zeros(n, np.int8)
    flags[-1] = logits
    batch = llama.llama_batch()
    batch.n_tokens = n
    batch.pos = pos.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    batch.logits = flags.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
    if rows is None:
        batch.token = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    else:
        batch.embd = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    assert llama.llama_decode(ctx, batch) == 0
    return past + n


def encode(mtmd: Any, model: Any, tower_path: str, pixels: Any, n_embd: int) -> list[Any]:
    """Rows of every square that mtmd makes of a picture."""
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.warmup, params.print_timings, params.n_threads = False, False, False, 1
    params.flash_attn_type = 1
    tower = mtmd.mtmd_init_from_file(tower_path.encode(), model, params)
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    bitmap = mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks, marker = mtmd.mtmd_input_chunks_init(), mtmd.mtmd_default_marker()
    request = mtmd.mtmd_input_text(marker, len(marker), False, True)
    assert mtmd.mtmd_tokenize(tower, chunks, ctypes.byref(request), (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap), 1) == 0
    rows = []
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) == 1:  # an image
            assert mtmd.mtmd_encode_chunk(tower, chunk) == 0
            shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), n_embd)
            rows.append(np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(tower), shape=shape).copy())
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
