"""A staged context as a context: its memory, going back, saved states; and stock llama.cpp with the feature off.

AIM_STOCK_LIB names a folder with unpatched libraries of the same upstream version; without it the comparison with stock
llama.cpp is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from reference_aim import Reference
from staged_models import COUNTS, SHAPE, Models, distance, make_prompt, open_context, run, stages_of
from tiny_text import TextShape

from aim_local.errors import ContextError, NativeError
from aim_local.native.library import LIB_FOLDER, llama
from aim_local.native.staged import ROW_TOKEN, StagedContext, StagePlan, compute_bytes


def test_memory_is_the_plan(models: Models) -> None:
    with open_context(models, SHAPE, COUNTS, n_text=40, type_k="f16", type_v="f16") as ctx:
        stages = ctx.stages()
        cells = [-(-(n + 40) // 8) * 8 for n in (24, 18, 11, 4, 0)]
        assert [s.n_cells for s in stages] == cells
        row = 2 * 2 * SHAPE.n_kv * SHAPE.d_head  # K and V, two bytes each
        assert [s.kv_bytes for s in stages] == [row * s.n_cells * (s.il_end - s.il_begin) for s in stages]
        assert llama.llama_n_ctx(ctx.ctx) >= cells[0]


def test_compute_bytes_of_a_model_without_weights(models: Models) -> None:
    """A context that holds nothing knows how large its compute buffers would be."""
    params = llama.llama_model_default_params()
    params.no_alloc, params.load_mode = True, llama.LLAMA_LOAD_MODE_NONE
    hollow = llama.llama_model_load_from_file(str(models.path(SHAPE)).encode(), params)
    assert hollow
    plan = stages_of(COUNTS, 64)
    try:
        with StagedContext(models.load(SHAPE), plan) as a, StagedContext(hollow, plan) as b:
            assert a.ctx
            assert b.ctx
            assert compute_bytes(b.ctx) == compute_bytes(a.ctx) > 0
    finally:
        llama.llama_model_free(hollow)


def test_truncate_and_repeat(models: Models) -> None:
    """Forgetting a tail leaves the same context as never having had it."""
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS) as ctx:
        run(ctx, prompt, COUNTS)
        first = [ctx.decode(7) for _ in range(5)]
        ctx.truncate(len(prompt.ids))
        again = [ctx.decode(7) for _ in range(5)]
        assert np.allclose(first, again, atol=1e-6)


def test_truncate_inside_visual(models: Models) -> None:
    """Positions go on after the last row the first layer still has, also where later layers have pruned it."""
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS) as ctx:
        run(ctx, prompt, COUNTS)
        ctx.truncate(15)
        assert ctx.n_past == 15
        ctx.decode(3)
        assert ctx.n_past == 16


def test_shift(models: Models) -> None:
    """llama_memory_seq_add moves the rows of every stage."""
    prompt, reference = make_prompt(SHAPE, [5, 24, 6]), Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, COUNTS) as ctx:
        run(ctx, prompt, COUNTS)
        expected = ctx.decode(9)
        ctx.truncate(len(prompt.ids))
        llama.llama_memory_seq_add(ctx.memory, 0, 0, -1, 3)
        assert ctx.n_past == len(prompt.ids) + 3
        assert distance(ctx.decode(9), expected) < 1e-4  # RoPE is relative
    del reference


@pytest.mark.parametrize("kv", ["f32", "q8_0"])
def test_state_comes_back(models: Models, kv: str) -> None:
    shape = replace(SHAPE, d_head=64)
    prompt = make_prompt(shape, [5, 24, 6])
    options: dict[str, Any] = {"type_k": kv, "type_v": kv, "flash_attn": kv != "f32"}
    with open_context(models, shape, COUNTS, **options) as a, open_context(models, shape, COUNTS, 80, **options) as b:
        run(a, prompt, COUNTS)
        state = a.state()
        expected = [a.decode(t) for t in (3, 4, 5)]
        b.restore(state)
        assert b.n_past == len(prompt.ids)
        assert np.allclose([b.decode(t) for t in (3, 4, 5)], expected, atol=1e-5)


def test_state_of_other_stages_is_refused(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS) as a:
        run(a, prompt, COUNTS)
        state = a.state()
    for counts in [(24,) * 6, (24, 18, 18, 11, 4, 0)]:
        with open_context(models, SHAPE, counts) as b:
            with pytest.raises(NativeError, match="does not fit"):
                b.restore(state)
            assert b.n_past == 0
    with open_context(models, SHAPE, COUNTS, n_text=8) as b, pytest.raises(NativeError, match="does not fit"):
        b.restore(state)


def test_full_context_is_an_error(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS, n_text=16) as ctx:
        run(ctx, prompt, COUNTS)
        with pytest.raises(ContextError, match=r"layers 0 to 1 have 5 of 40 cells free, 35 rows need one"):
            run(ctx, prompt, COUNTS)
        for _ in range(5):
            ctx.decode(1)
        with pytest.raises(ContextError, match="full"):
            ctx.decode(1)


# --- off is stock -----------------------------------------------------------------------------------------------------

STOCK = """
import json, sys, ctypes, numpy as np
import llama_cpp.llama_cpp as llama
quiet = llama.llama_log_callback(lambda *a: None)
llama.llama_log_set(quiet, None)
job = json.loads(sys.argv[1])
model = llama.llama_model_load_from_file(job["model"].encode(), llama.llama_model_default_params())
params = llama.llama_context_default_params()
params.n_ctx, params.n_batch, params.n_ubatch = 256, 256, job["n_ubatch"]
params.n_threads = params.n_threads_batch = 2
params.flash_attn_type = job["flash_attn"]
ctx = llama.llama_init_from_model(model, params)
out = []
for tokens in job["batches"]:
    ids = (ctypes.c_int32 * len(tokens))(*tokens)
    assert llama.llama_decode(ctx, llama.llama_batch_get_one(ids, len(tokens))) == 0
    row = llama.llama_get_logits_ith(ctx, -1)
    out.append(np.ctypeslib.as_array(row, (job["n_vocab"],)).astype("<f4").tobytes().hex())
print(json.dumps(out))
"""


def decode_elsewhere(folder: str, job: dict[str, Any]) -> list[str]:
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": folder, "MTMD_CPP_LIB": folder}
    done = subprocess.run([sys.executable, "-c", STOCK, json.dumps(job)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    out: list[str] = json.loads(done.stdout.splitlines()[-1])
    return out


@pytest.mark.parametrize("arch", ["qwen2", "llama"])
@pytest.mark.parametrize("flash_attn", [0, 1])
def test_off_is_stock(models: Models, arch: str, flash_attn: int) -> None:
    """Bit for bit the unpatched library, in ordinary contexts; and a staged context with one stage agrees with both."""
    stock = os.environ.get("AIM_STOCK_LIB")
    if not stock:
        pytest.skip("AIM_STOCK_LIB is not set")
    shape = TextShape(arch=arch, seed=5)
    ids = make_prompt(shape, [80]).ids
    job = {
        "model": str(models.path(shape)), "n_vocab": shape.n_vocab, "n_ubatch": 32, "flash_attn": flash_attn,
        "batches": [ids, [3], [4]],
    }  # fmt: skip
    ours = decode_elsewhere(str(LIB_FOLDER), job)
    assert ours == decode_elsewhere(stock, job)
    plan = StagePlan((0,), (256,))
    with StagedContext(models.load(shape), plan, n_ubatch=32, flash_attn=bool(flash_attn)) as ctx:
        logits = [ctx.prefill([ROW_TOKEN] * len(ids), ids, None, [0]), ctx.decode(3), ctx.decode(4)]
    assert [row.astype("<f4").tobytes().hex() for row in logits] == ours
