"""Staged prefill against the independent oracle, and everything a caller can get wrong.

Models are tiny and random: the numbers mean nothing, their agreement does. AIM_STOCK_LIB names a folder with unpatched
libraries of the same upstream version; without it the comparison with stock llama.cpp is skipped.
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from reference_aim import Reference, last_query, pagerank
from tiny_text import TextShape, make_model, write_gguf

from aim_local.errors import ContextError, ModelError, NativeError, UsageError
from aim_local.native import log as _logs
from aim_local.native import staged
from aim_local.native.library import LIB_FOLDER, llama
from aim_local.native.staged import ROW_EMBD, ROW_TOKEN, ROW_VISUAL, StagedContext, StagePlan

N_CONFIGS = 36
LIMIT = 1e-4  # of the largest logit or score: f32 against float64
NEAR_TIE = 1e-4  # relative distance of the two scores at the cut-off below which either choice is right
SHAPE = TextShape(n_layer=6)
COUNTS = (24, 24, 18, 11, 4, 0)


# --- models and prompts -----------------------------------------------------------------------------------------------


class Models:
    """Native models by shape and weight type, loaded once; and their transformers twins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.twins: dict[TextShape, Any] = {}
        self.native: dict[tuple[TextShape, str], int] = {}

    def twin(self, shape: TextShape) -> Any:
        if shape not in self.twins:
            self.twins[shape] = make_model(shape)
        return self.twins[shape]

    def path(self, shape: TextShape, weights: str = "F32") -> Path:
        path = self.folder / f"{abs(hash(shape))}-{weights}.gguf"
        if not path.exists():
            write_gguf(self.twin(shape), shape, path, gguf.GGMLQuantizationType[weights])
        return path

    def load(self, shape: TextShape, weights: str = "F32") -> int:
        if (shape, weights) not in self.native:
            params = llama.llama_model_default_params()
            params.n_gpu_layers = 0
            path = str(self.path(shape, weights)).encode()
            self.native[shape, weights] = llama.llama_model_load_from_file(path, params)
        return self.native[shape, weights]

    def close(self) -> None:
        gc.collect()
        for model in self.native.values():
            llama.llama_model_free(model)


_logs.clear()  # llama.cpp's log goes there, and not to the terminal


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    models = Models(tmp_path_factory.mktemp("gguf"))
    yield models
    models.close()


@dataclass
class Prompt:
    """Token ids, -1 for a visual row; and the visual rows."""

    ids: list[int]
    visual: torch.Tensor

    @property
    def is_visual(self) -> list[bool]:
        return [i < 0 for i in self.ids]

    @property
    def rows(self) -> list[int]:
        return [ROW_VISUAL if i < 0 else ROW_TOKEN for i in self.ids]

    def embeds(self, reference: Reference) -> torch.Tensor:
        x = reference.embed([max(i, 0) for i in self.ids])
        x[torch.tensor(self.is_visual, dtype=torch.bool)] = self.visual.double()
        return x


def make_prompt(shape: TextShape, parts: Sequence[int], seed: int = 0) -> Prompt:
    """parts: rows of text, visual, text, ... in turn."""
    g = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    for i, n in enumerate(parts):
        ids += [-1] * n if i % 2 else torch.randint(0, shape.n_vocab, (n,), generator=g).tolist()
    visual = 0.5 * torch.randn(sum(parts[1::2]), shape.n_head * shape.d_head, generator=g)
    return Prompt(ids, visual)


def open_context(
    models: Models, shape: TextShape, counts: Sequence[int], n_text: int = 64, weights: str = "F32", **options: Any
) -> StagedContext:
    # one thread: ggml's threads wait by spinning, which on a busy machine takes longer than these models do
    exact: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1}
    options = exact | options
    return StagedContext(models.load(shape, weights), StagePlan.from_layers(counts, n_text), **options)


def run(ctx: StagedContext, prompt: Prompt, counts: Sequence[int], **options: Any) -> np.ndarray[Any, Any]:
    embd = prompt.visual.numpy() if len(prompt.visual) else None
    return ctx.prefill(prompt.rows, prompt.ids, embd, ctx.plan.n_keep(counts), **options)


@dataclass
class Agreement:
    logits: float = 0.0  # largest difference over the largest logit
    importance: float = 0.0  # the same for scores
    cuts: int = 0
    near: int = 0
    overlap: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        overlap = f", kept-set overlap {min(self.overlap):.4f} to {max(self.overlap):.4f}" if self.overlap else ""
        return (f"logits differ by {self.logits:.2e} of the largest, importance by {self.importance:.2e}; "
                f"{self.cuts} cuts, {self.near} closer than {NEAR_TIE:g}{overlap}")  # fmt: skip


def compare(
    ctx: StagedContext,
    reference: Reference,
    prompt: Prompt,
    counts: Sequence[int],
    agreement: Agreement,
    score: Any = pagerank,
    exact: bool = True,
    **options: Any,
) -> torch.Tensor:
    """Prefills both; asserts the counts and, if exact, the kept sets. Returns the native logits."""
    logits = torch.tensor(run(ctx, prompt, counts, **options)).double()
    kept = [ctx.kept(il).tolist() for il in range(ctx.n_layer)]
    assert [len(k) for k in kept] == list(counts)
    expected = reference.prefill(prompt.embeds(reference), prompt.is_visual, counts, dict(enumerate(kept)), score)
    for il, scores in expected.importance.items():
        native = torch.tensor(ctx.importance(il)).double()
        agreement.importance = max(agreement.importance, distance(native, scores))
    for il, chosen in expected.chosen.items():
        agreement.cuts += 1
        agreement.near += expected.margin[il] < NEAR_TIE
        agreement.overlap.append(len(set(chosen) & set(kept[il])) / len(chosen))
        if expected.margin[il] >= NEAR_TIE and exact:
            assert kept[il] == chosen, f"layer {il} keeps other rows, margin {expected.margin[il]:.2e}"
    assert [il for il in range(ctx.n_layer) if ctx.importance(il) is not None] == list(expected.importance)
    agreement.logits = max(agreement.logits, distance(logits, expected.logits))
    return logits


def distance(a: Any, b: Any) -> float:
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    return float((a - b).abs().max() / b.abs().max())


def decode_both(ctx: StagedContext, reference: Reference, logits: torch.Tensor, n: int, agreement: Agreement) -> None:
    """n greedy tokens; asserts that both choose the same ones."""
    ours = theirs = logits
    for i in range(n):
        token = int(theirs.argmax())
        assert int(ours.argmax()) == token, f"token {i} differs"
        ours, theirs = torch.tensor(ctx.decode(token)), reference.decode(token)
        agreement.logits = max(agreement.logits, distance(ours, theirs))


# --- parity -----------------------------------------------------------------------------------------------------------


def draw(seed: int) -> tuple[TextShape, list[int], list[int], dict[str, Any]]:
    """A model shape, prompt parts, counts per layer and context options."""
    r = random.Random(seed)
    n_kv = r.choice([1, 2, 4])
    shape = TextShape(
        arch=r.choice(["qwen2", "llama"]), n_layer=r.randint(3, 10), n_kv=n_kv, n_head=n_kv * r.choice([1, 2, 3]),
        d_head=r.choice([8, 16, 32, 64]), seed=seed,
    )  # fmt: skip
    parts = [r.choice([0, 1, 5, 20])]
    for _ in range(r.choice([1, 1, 2, 3])):
        parts += [r.choice([1, 2, 16, 49, 100, 150]), r.randint(1, 12)]
    n_visual = sum(parts[1::2])
    if r.random() < 0.4:  # the paper's shape at this depth
        l1, l2 = round(14 * shape.n_layer / 28), round(22 * shape.n_layer / 28)
        shares = [1.0 if il <= l1 else max(0.0, 1 - (il - l1) / (l2 - l1)) for il in range(shape.n_layer)]
    else:
        drawn = [r.choice([0.0, r.random(), r.random(), r.random(), 1.0]) for _ in range(shape.n_layer - 1)]
        shares = [1.0, *sorted(drawn, reverse=True)]
    counts = [int(n_visual * share + 1e-9) for share in shares]
    return shape, parts, counts, {"n_ubatch": r.choice([7, 32, 512]), "n_threads": 1 + (seed % 9 == 0)}


TOTAL = Agreement()


@pytest.mark.parametrize("seed", range(N_CONFIGS))
def test_parity(models: Models, seed: int) -> None:
    shape, parts, counts, options = draw(seed)
    prompt = make_prompt(shape, parts, seed)
    agreement = Agreement()
    reference = Reference(models.twin(shape))
    with open_context(models, shape, counts, n_text=len(prompt.ids) - counts[0] + 40, **options) as ctx:
        logits = compare(ctx, reference, prompt, counts, agreement)
        decode_both(ctx, reference, logits, 32, agreement)
        for il, held in enumerate(reference.layers):  # each layer attends to its own rows, cell for cell
            assert held is not None
            assert ctx.stages()[stage_of(ctx, il)].n_visual == counts[il]
    print(f"\n{seed:2}: {shape.arch}, parts {parts}, counts {counts}, {options}: {agreement}", end="")
    assert agreement.logits < LIMIT, str(agreement)
    assert agreement.importance < LIMIT, str(agreement)
    TOTAL.logits, TOTAL.importance = max(TOTAL.logits, agreement.logits), max(TOTAL.importance, agreement.importance)
    TOTAL.cuts, TOTAL.near = TOTAL.cuts + agreement.cuts, TOTAL.near + agreement.near
    if seed == N_CONFIGS - 1:
        print(f"\nall: {TOTAL}", end="")


def stage_of(ctx: StagedContext, il: int) -> int:
    return next(s for s, info in enumerate(ctx.stages()) if info.il_begin <= il < info.il_end)


def test_parity_last_query(models: Models) -> None:
    prompt, agreement = make_prompt(SHAPE, [5, 24, 6]), Agreement()
    reference = Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, COUNTS, n_ubatch=8) as ctx:
        logits = compare(ctx, reference, prompt, COUNTS, agreement, last_query, importance="last_query")
        decode_both(ctx, reference, logits, 8, agreement)
    assert agreement.logits < LIMIT, str(agreement)


@pytest.mark.parametrize("n_bytes_scores", [0, 1 << 20, 1 << 16, 1])
def test_long_prompt_in_blocks(models: Models, n_bytes_scores: int) -> None:
    """More rows than one block of scores has, and than one ubatch; and less memory for scores than they take."""
    counts = (900, 700, 300, 300, 100, 0)
    if n_bytes_scores == 1:
        counts = (60, 50, 20, 20, 10, 0)
    prompt, agreement = make_prompt(SHAPE, [40, counts[0] - 30, 9, 30, 30]), Agreement()
    reference = Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, counts, 200) as ctx:
        compare(ctx, reference, prompt, counts, agreement, n_bytes_scores=n_bytes_scores)
    print(f"\n{agreement}", end="")
    assert agreement.logits < LIMIT, str(agreement)


@pytest.mark.parametrize("weights", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("kv", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("flash_attn", [False, True])
def test_lower_precision(models: Models, weights: str, kv: str, flash_attn: bool) -> None:
    """How far f16 and q8_0 weights and caches are from float64, printed. A quantised V cache needs flash attention."""
    if kv == "q8_0" and not flash_attn:
        pytest.skip("llama.cpp has no quantised V cache without flash attention")
    shape, counts = replace(SHAPE, d_head=64), (196, 196, 147, 98, 49, 0)
    prompt, agreement = make_prompt(shape, [10, 196, 20]), Agreement()
    reference = Reference(models.twin(shape))
    with open_context(models, shape, counts, 64, weights, type_k=kv, type_v=kv, flash_attn=flash_attn) as ctx:
        compare(ctx, reference, prompt, counts, agreement, exact=False)
        ctx.decode(1)
    print(f"\nweights {weights}, KV {kv}, flash attention {flash_attn}: {agreement}", end="")
    assert min(agreement.overlap) > 0.9, str(agreement)
    assert agreement.logits < 0.05, str(agreement)


# --- chat -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[9], [3, 12, 4], [0, 30, 2]], ids=["text", "media", "media first"])
def test_second_turn(models: Models, parts: list[int]) -> None:
    """Rows of the first turn are keys only; the oracle scores the full square of both turns."""
    first, second, agreement = make_prompt(SHAPE, [5, 24, 6]), make_prompt(SHAPE, parts, 1), Agreement()
    n = sum(parts[1::2])
    counts = [int(n * share) for share in (1, 1, 0.75, 0.5, 0.25, 0)]
    plan = [a + b for a, b in zip(COUNTS, counts, strict=True)]
    reference = Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, plan, 80, n_ubatch=16) as ctx:
        logits = compare(ctx, reference, first, COUNTS, agreement)
        decode_both(ctx, reference, logits, 5, agreement)
        logits = compare(ctx, reference, second, counts, agreement)
        decode_both(ctx, reference, logits, 8, agreement)
    assert agreement.logits < LIMIT, str(agreement)


def test_append_is_decode(models: Models) -> None:
    """New text through prefill or through llama_decode gives the same."""
    prompt, text = make_prompt(SHAPE, [5, 24, 6]), make_prompt(SHAPE, [4], 3)
    with open_context(models, SHAPE, COUNTS) as a, open_context(models, SHAPE, COUNTS) as b:
        run(a, prompt, COUNTS)
        run(b, prompt, COUNTS)
        by_prefill = run(a, text, [0] * SHAPE.n_layer)
        for token in text.ids:
            by_decode = b.decode(token)
        assert distance(by_prefill, by_decode) < 1e-5
        assert a.n_past == b.n_past


# --- what a prompt can look like --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        ([5, 24, 6], (24, 0, 0, 0, 0, 0)),
        ([5, 24, 6], (24, 24, 24, 24, 24, 0)),
        ([5, 1, 6], (1, 1, 1, 0, 0, 0)),
        ([5, 2, 6], (2, 2, 1, 1, 0, 0)),
        ([12], (0, 0, 0, 0, 0, 0)),
        ([1], (0, 0, 0, 0, 0, 0)),
        ([0, 24, 1], (24, 20, 10, 5, 5, 1)),
        ([5, 24, 6], (24, 24, 24, 24, 24, 24)),
    ],
    ids=["all pruned at 1", "late drop", "one token", "two tokens", "no visual", "one row", "visual first", "off"],
)
def test_edges(models: Models, parts: list[int], counts: tuple[int, ...]) -> None:
    prompt, agreement = make_prompt(SHAPE, parts), Agreement()
    reference = Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, counts) as ctx:
        logits = compare(ctx, reference, prompt, counts, agreement)
        decode_both(ctx, reference, logits, 4, agreement)
    assert agreement.logits < LIMIT, str(agreement)


def test_embedding_rows_stay(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    rows = [ROW_EMBD if k == ROW_VISUAL else k for k in prompt.rows]
    with open_context(models, SHAPE, [24] * 6) as ctx:
        kept = ctx.prefill(rows, prompt.ids, prompt.visual.numpy(), [0])
        assert ctx.kept(5).tolist() == []
        ctx.clear()
        assert np.array_equal(kept, ctx.prefill(prompt.rows, prompt.ids, prompt.visual.numpy(), [24]))


# --- selection --------------------------------------------------------------------------------------------------------


def test_random_is_seeded(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS) as ctx:
        kept: dict[int, list[list[int]]] = {}
        for seed in (1, 2, 1):
            ctx.clear()
            run(ctx, prompt, COUNTS, importance="random", seed=seed)
            now = [ctx.kept(il).tolist() for il in range(6)]
            assert kept.setdefault(seed, now) == now
            assert all(set(b) <= set(a) for a, b in pairwise(now))
            assert ctx.importance(1) is None
        assert kept[1] != kept[2]


def test_grid_is_even(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, (24, 24, 6, 6, 6, 0)) as ctx:
        run(ctx, prompt, (24, 24, 6, 6, 6, 0), importance="grid")
        assert ctx.kept(2).tolist() == [2, 6, 10, 14, 18, 22]


def test_callback_chooses(models: Models) -> None:
    prompt, seen = make_prompt(SHAPE, [5, 24, 6]), []

    def last(il: int, importance: Any, n_keep: int) -> Any:
        seen.append((il, importance, n_keep))
        return np.arange(len(importance))[::-1][:n_keep]

    with open_context(models, SHAPE, COUNTS) as ctx:
        run(ctx, prompt, COUNTS, select=last)
        assert [(il, len(scores), n) for il, scores, n in seen] == [(1, 24, 18), (2, 18, 11), (3, 11, 4)]
        assert ctx.kept(2).tolist() == list(range(6, 24))
        assert ctx.kept(4).tolist() == list(range(20, 24))
        for il, scores, _ in seen:
            assert scores.tolist() == np.asarray(ctx.importance(il)).tolist()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n, k: range(k - 1), "kept 17 of 24"),
        (lambda n, k: range(k + 1), "kept 19 of 24"),
        (lambda n, k: range(n + 9), "kept 33 of 24"),
        (lambda n, k: [0, *range(k - 1)], "index 0 twice"),
        (lambda n, k: range(7, k + 7), "index 24"),
        (lambda n, k: range(-1, k - 1), "index -1"),
        (lambda n, k: [], "kept 0 of 24"),
    ],
)
def test_callback_faults(models: Models, answer: Callable[[int, int], Any], words: str) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    with open_context(models, SHAPE, COUNTS) as ctx:
        expected = run(ctx, prompt, COUNTS)
        n_past = ctx.n_past
        with pytest.raises(NativeError, match=words):
            run(ctx, prompt, COUNTS, select=lambda il, s, k: np.array(list(answer(len(s), k)), np.int64))
        assert ctx.n_past == n_past  # the earlier turn is still there
        ctx.clear()
        assert np.array_equal(run(ctx, prompt, COUNTS), expected)


def test_callback_exception_comes_out(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])

    def fails(il: int, importance: Any, n_keep: int) -> Any:
        raise KeyError(f"layer {il}")

    with open_context(models, SHAPE, COUNTS) as ctx:
        with pytest.raises(KeyError, match="layer 1"):
            run(ctx, prompt, COUNTS, select=fails)
        assert ctx.n_past == 0
        with pytest.raises(UsageError, match="float64"):
            run(ctx, prompt, COUNTS, select=lambda il, s, k: np.zeros(k))
        first = run(ctx, prompt, COUNTS)
        ctx.clear()
        assert np.array_equal(first, run(ctx, prompt, COUNTS))


# --- the context as a context -----------------------------------------------------------------------------------------


def test_memory_is_the_plan(models: Models) -> None:
    with open_context(models, SHAPE, COUNTS, n_text=40, type_k="f16", type_v="f16") as ctx:
        stages = ctx.stages()
        cells = [-(-(n + 40) // 8) * 8 for n in (24, 18, 11, 4, 0)]
        assert [s.n_cells for s in stages] == cells
        row = 2 * 2 * SHAPE.n_kv * SHAPE.d_head  # K and V, two bytes each
        assert [s.kv_bytes for s in stages] == [row * s.n_cells * (s.il_end - s.il_begin) for s in stages]
        assert llama.llama_n_ctx(ctx.ctx) >= cells[0]


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


def test_abort_leaves_the_context_usable(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    stop = [False]
    callback = llama.ggml_abort_callback(lambda _: stop[0])
    with open_context(models, SHAPE, COUNTS) as ctx:
        expected = run(ctx, prompt, COUNTS)
        ctx.clear()
        llama.llama_set_abort_callback(ctx.ctx, callback, None)
        stop[0] = True
        with pytest.raises(NativeError, match="abort"):
            run(ctx, prompt, COUNTS)
        stop[0] = False
        assert ctx.n_past == 0
        assert np.array_equal(run(ctx, prompt, COUNTS), expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"parts": [5, 24]}, UsageError, "cannot end with visual rows"),
        ({"n_keep": [24, 18, 19, 4, 0]}, UsageError, r"n_keep\[2\] is 19 after 18"),
        ({"n_keep": [24, 18, 11, 4, -1]}, UsageError, r"n_keep\[4\] is -1"),
        ({"n_keep": [20, 18, 11, 4, 0]}, UsageError, "nothing can be pruned before the first layer"),
        ({"n_keep": [24, 18, 11, 4]}, UsageError, "n_keep has 4 stages, the context has 5"),
        ({"token": 128}, UsageError, "row 0 is token 128; the vocabulary has 128"),
        ({"token": -5}, UsageError, "row 0 is token -5"),
        ({"kind": 3}, UsageError, "row 0 is of kind 3"),
        ({"importance": "magic"}, UsageError, "importance 'magic' is unknown"),
        ({"visual": 23}, UsageError, "embd has shape"),
        ({"nan": True}, NativeError, "not finite"),
    ],
    ids=str,
)
def test_bad_prefill(models: Models, change: dict[str, Any], error: type[Exception], words: str) -> None:
    prompt = make_prompt(SHAPE, change.get("parts", [5, 24, 6]))
    rows, ids, embd = prompt.rows, prompt.ids, prompt.visual.numpy()
    ids[0] = change.get("token", ids[0])
    rows[0] = change.get("kind", rows[0])
    embd = embd[: change.get("visual", 24)]
    if "nan" in change:
        embd[3, 3] = np.nan
    with open_context(models, SHAPE, COUNTS) as ctx:
        n_keep, importance = change.get("n_keep", (24, 18, 11, 4, 0)), change.get("importance", "pagerank")
        with pytest.raises(error, match=words):
            ctx.prefill(rows, ids, embd, n_keep, importance=importance)
        assert ctx.n_past == 0
        run(ctx, make_prompt(SHAPE, [5, 24, 6]), COUNTS)


def test_empty_prefill(models: Models) -> None:
    with open_context(models, SHAPE, COUNTS) as ctx, pytest.raises(UsageError, match="at least one row"):
        ctx.prefill([], [], None, (0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("il_begin", "n_cells", "words"),
    [
        ((1, 3), (32, 16), "stage 0 has layers 1 to 2"),
        ((0, 3, 3), (32, 16, 8), "stage 1 has layers 3 to 2"),
        ((0, 6), (32, 16), "stage 1 has layers 6 to 5"),
        ((0, 9), (32, 16), "stage 0 has layers 0 to 8"),
        ((0, 3), (16, 32), "stage 1 has 32 cells"),
        ((0,), (0,), "stage 0 has 0 cells"),
        ((), (), "0 stages for 6 layers"),
        ((0, 1), (8,), "2 stages have 1 cell counts"),
    ],
)
def test_bad_plan(models: Models, il_begin: tuple[int, ...], n_cells: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StagedContext(models.load(SHAPE), StagePlan(il_begin, n_cells))


def test_other_architectures_are_named(models: Models, tmp_path: Path) -> None:
    shape = replace(SHAPE, arch="qwen2")
    twin = models.twin(shape)
    path = tmp_path / "other.gguf"
    write_gguf(twin, replace(shape, arch="internlm2"), path)
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    assert model, "internlm2 has the tensors of llama"
    assert "internlm2; supported are qwen2 and llama" in staged.unsupported_reason(model)
    with pytest.raises(ModelError, match="supported are qwen2 and llama"):
        StagedContext(model, StagePlan((0,), (32,)))
    llama.llama_model_free(model)
    assert staged.unsupported_reason(models.load(SHAPE)) == ""


def test_quantised_v_without_flash_attention(models: Models) -> None:
    with pytest.raises(NativeError, match="could not make the context"):
        open_context(models, replace(SHAPE, d_head=64), COUNTS, type_v="q8_0", flash_attn=False)


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
