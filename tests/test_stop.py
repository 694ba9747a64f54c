"""Native work ended from outside: it ends soon, says why, leaves everything as before, and the next call works."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from staged_models import COUNTS, SHAPE, Models, make_prompt, open_context, run
from tiny_text import TextShape

from aim_local.errors import NativeError, UsageError
from aim_local.native import library
from aim_local.native.library import llama, mtmd
from aim_local.native.stop import StopHook
from aim_local.native.visual import TileEncoder


class Stopped(BaseException):
    """Not an Exception: whatever ends the work has to come out."""


class Poll:
    """Raises Stopped at the `at`-th question, 0 for never; counts the questions."""

    def __init__(self, at: int = 1) -> None:
        self.at, self.n = at, 0

    def __call__(self) -> None:
        self.n += 1
        if self.n == self.at:
            raise Stopped(f"question {self.n}")


# --- prefill and decode -----------------------------------------------------------------------------------------------


def test_a_prefill_may_end_after_any_node(models: Models) -> None:
    """Aborted after each node in turn, also of the scoring graphs; nothing of the prompt is left."""
    shape, counts = TextShape(n_layer=3), (24, 12, 0)
    turn, prompt = make_prompt(shape, [3, 0, 2]), make_prompt(shape, [5, 24, 6])
    left = [0]

    def asked(_: Any) -> bool:
        left[0] -= 1
        return left[0] == 0

    callback = llama.ggml_abort_callback(asked)
    texts: list[str] = []
    with open_context(models, shape, counts) as ctx:
        run(ctx, turn, [0, 0, 0])
        before = ctx.state()
        expected = run(ctx, prompt, counts)
        ctx.truncate(len(turn.ids))
        llama.llama_set_abort_callback(ctx.ctx, callback, None)
        for node in range(1, 10_000):
            left[0] = node
            try:
                found = run(ctx, prompt, counts)
                break
            except NativeError as e:
                texts.append(str(e))
            assert ctx.n_past == len(turn.ids)
            assert ctx.state() == before
    assert np.array_equal(found, expected)
    assert set(texts) == {
        "aborted in the token embeddings",
        "aborted between two graphs",
        "aborted in layers 0 to 0",
        "aborted in the scores of a layer",
        "aborted in layers 1 to 1",
        "aborted in layers 2 to 2",
    }


def test_what_poll_raises_comes_out_of_prefill(models: Models) -> None:
    hook, prompt = StopHook(), make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS, stop=hook) as ctx:
        expected = run(ctx, prompt, COUNTS)
        before = ctx.state()
        time.sleep(0.06)  # then the next question is due
        hook.poll = Poll()
        with pytest.raises(Stopped, match="question 1"):
            run(ctx, prompt, COUNTS)
        assert ctx.state() == before
        ctx.clear()
        assert np.array_equal(run(ctx, prompt, COUNTS), expected)


@pytest.mark.parametrize(
    ("counts", "n_bytes_scores"),
    [
        pytest.param([900] * 20 + [450] * 20, 0, id="layers"),
        pytest.param(list(range(60, 20, -1)), 1, id="scores", marks=pytest.mark.thorough),
    ],
)
def test_a_long_prefill_ends_in_the_middle(models: Models, counts: list[int], n_bytes_scores: int) -> None:
    """With memory for one row of scores at a time the ranking takes most of the time, so most stops fall there."""
    hook, shape = StopHook(), TextShape(n_layer=40, n_head=8)
    prompt = make_prompt(shape, [9, counts[0], 30])
    with open_context(models, shape, counts, stop=hook) as ctx:
        hook.poll = Poll(2)
        with pytest.raises(Stopped, match="question 2"):
            run(ctx, prompt, counts, n_bytes_scores=n_bytes_scores)
        assert re.fullmatch("aborted (in (the scores of a layer|layers .*)|between two graphs)", library.LLAMA.text())
        assert ctx.n_past == 0
        hook.poll = poll = Poll(0)
        start = time.perf_counter()
        run(ctx, prompt, counts, n_bytes_scores=n_bytes_scores)
        seconds = time.perf_counter() - start
        print(f"\n  {seconds * 1000:.0f} ms, asked {poll.n} times")
        assert 1 < poll.n <= 1 + seconds / 0.05  # not at every node


def test_decode_stops_and_goes_on(models: Models) -> None:
    hook, prompt = StopHook(), make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS, stop=hook) as ctx:
        run(ctx, prompt, COUNTS)
        expected = ctx.decode(7)
        ctx.truncate(len(prompt.ids))
        hook.poll = Poll()
        time.sleep(0.06)
        with pytest.raises(Stopped):
            ctx.decode(7)
        assert ctx.n_past == len(prompt.ids)
        assert np.allclose(ctx.decode(7), expected, atol=1e-6)


def test_a_plain_context_stops(models: Models) -> None:
    """llama_decode returns 2; who called it asks the hook why."""
    hook = StopHook()
    ctx = llama.llama_init_from_model(models.load(SHAPE), llama.llama_context_default_params())
    try:
        hook.attach_context(ctx)
        hook.poll = Poll()
        ids = (ctypes.c_int32 * 3)(1, 2, 3)  # a name: the batch holds its address only
        batch = llama.llama_batch_get_one(ids, 3)
        assert llama.llama_decode(ctx, batch) == 2
        assert llama.llama_memory_seq_pos_max(llama.llama_get_memory(ctx), 0) == -1
        with pytest.raises(Stopped):
            hook.reraise()
        assert llama.llama_decode(ctx, batch) == 0
        hook.reraise()
    finally:
        llama.llama_free(ctx)


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT to one process")
@pytest.mark.parametrize("attempt", range(5))
def test_ctrl_c_ends_a_prefill(models: Models, attempt: int) -> None:
    """It arrives inside the native call, between two lines of Python that nobody wrote, and must not be lost there."""
    shape, counts = TextShape(n_layer=40, n_head=8), [900] * 20 + [450] * 20
    prompt = make_prompt(shape, [9, 900, 30])
    with open_context(models, shape, counts, stop=StopHook()) as ctx:
        timer = threading.Timer(0.1 + 0.02 * attempt, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run(ctx, prompt, counts)
        assert library.LLAMA.text().startswith("aborted in")  # and not after the whole prompt
        assert ctx.n_past == 0


# --- the vision tower -------------------------------------------------------------------------------------------------


FOLDER = files("aim_local") / "data" / "model"  # the bundled model


@pytest.fixture
def tower() -> Iterator[Any]:
    """An mtmd_context of the bundled model."""
    text_params = llama.llama_model_default_params()
    text_params.vocab_only = True
    text = llama.llama_model_load_from_file(str(FOLDER / "model.gguf").encode(), text_params)
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.print_timings, params.warmup, params.n_threads = False, False, False, 1
    context = mtmd.mtmd_init_from_file(str(FOLDER / "mmproj.gguf").encode(), text, params)
    assert context
    yield context
    mtmd.mtmd_free(context)
    llama.llama_model_free(text)


def test_a_tile_stops(tower: Any) -> None:
    hook = StopHook()
    hook.attach_vision(tower)
    encoder = TileEncoder(tower, n_threads=1, stop=hook)
    tile = np.random.default_rng(0).integers(0, 256, (encoder.side, encoder.side, 3), np.uint8)
    expected = encoder.encode(tile)
    hook.poll = Poll()
    time.sleep(0.06)
    with pytest.raises(Stopped):
        encoder.encode(tile)
    assert library.MTMD.text() == "the vision tower was stopped"
    assert np.array_equal(encoder.encode(tile), expected)


def test_a_tile_stopped_by_nobody_known(tower: Any) -> None:
    """Without the hook at hand it is still an error, not rows of zeros."""
    hook = StopHook()
    hook.attach_vision(tower)
    encoder = TileEncoder(tower, n_threads=1)
    hook.poll = Poll()
    with pytest.raises(NativeError, match="was stopped"):
        encoder.encode(np.zeros((encoder.side, encoder.side, 3), np.uint8))


def test_a_chunk_stops(tower: Any) -> None:
    """What mtmd encodes itself fails as well; who called it asks the hook why."""
    pixels = (ctypes.c_uint8 * (3 * 64 * 64))()
    bitmap = mtmd.mtmd_bitmap_init(64, 64, pixels)
    chunks = mtmd.mtmd_input_chunks_init()
    hook = StopHook()
    hook.attach_vision(tower)
    try:
        text = mtmd.mtmd_input_text(b"<__media__>", 11, True, True)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        assert mtmd.mtmd_tokenize(tower, chunks, ctypes.byref(text), bitmaps, 1) == 0
        every = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        chunk = next(c for c in every if mtmd.mtmd_input_chunk_get_type(c) == 1)  # MTMD_INPUT_CHUNK_TYPE_IMAGE
        hook.poll = Poll()
        assert mtmd.mtmd_encode_chunk(tower, chunk) != 0
        with pytest.raises(Stopped):
            hook.reraise()
        assert mtmd.mtmd_encode_chunk(tower, chunk) == 0
        hook.reraise()
    finally:
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_bitmap_free(bitmap)


def test_what_has_no_vision_tower_has_nothing_to_stop() -> None:
    with pytest.raises(UsageError, match="mtmd context is null"):
        StopHook().attach_vision(None)
    with pytest.raises(UsageError, match="context is null"):
        StopHook().attach_context(None)


# --- the hook itself --------------------------------------------------------------------------------------------------


def test_check_asks_between_native_calls() -> None:
    hook = StopHook()
    hook.check()
    hook.poll = Poll(2)
    hook.check()
    with pytest.raises(Stopped):
        hook.check()
    hook.check()


def test_reraise_gives_it_once() -> None:
    hook = StopHook()
    hook.poll = poll = Poll()
    assert hook.callback(None) is True
    assert hook.callback(None) is True  # stays so until it is fetched, and asks no more
    assert poll.n == 1
    with pytest.raises(Stopped):
        hook.reraise()
    hook.reraise()
    assert hook.callback(None) is False
