"""Threads in the native libraries at once, each with objects of its own: the same numbers as one after another.

The engine gives a model's calls their turns (test_threads.py); what two models, two towers and two loads share, nobody
does. `make sanitize-thread` runs this with the thread sanitizer, several threads in each graph.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fuzz.sanitizer import RUNNING
from staged_models import COUNTS, SHAPE, Models, make_prompt, open_context, run

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.native.library import llama, mtmd
from aim_local.native.stop import StopHook
from aim_local.native.visual import TileEncoder, merge_rows, pool_rows, ward_rows
from aim_local.store.names import resolve

N = 3  # threads of this test
PER_GRAPH = 2 if RUNNING else 1  # they wait by spinning, which takes long on a busy machine
PROMPT = make_prompt(SHAPE, [5, 24, 6])


class Stopped(Exception):
    pass


def together(*calls: Callable[[], Any]) -> list[Any]:
    """What they return, begun at one moment."""
    begin = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        begin.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(one, call) for call in calls]]


def conversation(models: Models, **options: Any) -> list[bytes]:
    """Logits of a context's life: prefill, decoding, a state kept and restored, rows taken back."""
    found = []
    with open_context(models, SHAPE, COUNTS, n_threads=PER_GRAPH, **options) as ctx:
        for _ in range(2):
            found += [run(ctx, PROMPT, COUNTS), ctx.decode(3)]
            before = ctx.state()
            found.append(ctx.decode(7))
            ctx.restore(before)
            found.append(ctx.decode(7))
            ctx.truncate(0)
    return [logits.tobytes() for logits in found]


def test_contexts_of_one_model(models: Models) -> None:
    models.load(SHAPE)
    expected = conversation(models)
    assert together(*[lambda: conversation(models)] * N) == [expected] * N


def test_one_is_stopped_from_outside(models: Models) -> None:
    """The others, and its own next call, compute as before."""
    models.load(SHAPE)
    expected, asked, stop = conversation(models), threading.Event(), threading.Event()

    def poll() -> None:
        asked.set()
        if stop.is_set():
            raise Stopped

    def stopped() -> list[bytes]:
        hook = StopHook()
        hook.poll = poll

        def ask_for_ever() -> None:
            while True:
                run(ctx, PROMPT, COUNTS)
                ctx.truncate(0)

        with open_context(models, SHAPE, COUNTS, n_threads=PER_GRAPH, stop=hook) as ctx, pytest.raises(Stopped):
            ask_for_ever()
        return conversation(models)

    def stopper() -> list[bytes]:
        assert asked.wait(60)
        stop.set()
        return expected

    assert together(stopped, stopper, lambda: conversation(models)) == [expected] * 3


def encoded(text: Any) -> list[bytes]:
    """Rows of a tower of its own, pooled and merged."""
    params = mtmd.mtmd_context_params_default()
    params.use_gpu = params.print_timings = params.warmup = False
    params.n_threads = PER_GRAPH
    tower = mtmd.mtmd_init_from_file(str(resolve().mmproj).encode(), text, params)
    try:
        encoder = TileEncoder(tower, n_threads=PER_GRAPH)
        tile = np.random.default_rng(0).integers(0, 256, (encoder.side, encoder.side, 3), np.uint8)
        rows = encoder.encode(tile)
        by_ward = ward_rows(rows, len(rows) // 3, n_threads=2)
        merged = merge_rows(rows, 0.5, n_threads=2)
        return [a.tobytes() for a in (rows, pool_rows(rows, encoder.patches_per_side), merged.rows, by_ward.rows)]
    finally:
        mtmd.mtmd_free(tower)


def test_towers_of_one_model() -> None:
    params = llama.llama_model_default_params()
    params.vocab_only = True
    text = llama.llama_model_load_from_file(str(resolve().model).encode(), params)
    try:
        expected = encoded(text)
        assert together(*[lambda: encoded(text)] * N) == [expected] * N
    finally:
        llama.llama_model_free(text)


def test_models_are_loaded_and_closed_at_once() -> None:
    """With their progress and log callbacks, tokenizers and grammars; one is closed while the others compute."""
    picture = np.full((112, 112, 3), 99, np.uint8)

    def life() -> str:
        with VisionLLM.load(config=LoadConfig(n_threads=PER_GRAPH)) as llm:
            asked = GenerateConfig(max_tokens=3, grammar='root ::= "a" | "ring"')
            answer = llm.generate("What is it?", [picture], VisualTokenConfig.paper(), asked)
            return f"{answer.text} {llm.generate('And?', generate=GenerateConfig(max_tokens=2)).text}"

    expected = life()
    assert together(*[life] * N) == [expected] * N


def test_a_freed_handle_is_refused_while_others_are_made(models: Models) -> None:
    """The list of what is alive is one for all threads."""
    from aim_local.native import staged
    from aim_local.native.outcome import INVALID

    def made_and_freed() -> set[int]:
        found = set()
        for _ in range(20):
            params = llama.llama_context_default_params()
            params.n_ctx, params.n_threads = 64, 1
            ctx = llama.llama_init_from_model(models.load(SHAPE), params)
            address = ctypes.cast(ctx, ctypes.c_void_p).value
            found.add(staged._n_stages(address))
            llama.llama_free(ctx)
        return found

    def asked() -> set[int]:
        return {staged._n_stages(0x1000) for _ in range(200)}

    models.load(SHAPE)
    *of_contexts, of_none = together(made_and_freed, made_and_freed, asked)
    assert of_none == {INVALID}
    assert of_contexts[0] == of_contexts[1]
