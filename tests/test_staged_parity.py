"""Staged prefill against the independent oracle: kept sets, scores and logits."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from limits import LIMITS
from reference_aim import Reference, last_query
from staged_models import COUNTS, SHAPE, Models, distance, make_prompt, open_context, run
from staged_oracle import Agreement, compare, decode_both
from thorough import few
from tiny_text import TextShape

from aim_local.native.staged import ROW_EMBD, ROW_VISUAL, StagedContext

N_CONFIGS = 36


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


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 5))
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
    agreement.check()
    TOTAL.logits, TOTAL.importance = max(TOTAL.logits, agreement.logits), max(TOTAL.importance, agreement.importance)
    TOTAL.cuts, TOTAL.other, TOTAL.ties = (
        TOTAL.cuts + agreement.cuts, TOTAL.other + agreement.other, TOTAL.ties + agreement.ties
    )  # fmt: skip
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
    agreement.check()


@pytest.mark.parametrize("n_bytes_scores", few([0, 1 << 20, 1 << 22, 1 << 16, 1], 2))
def test_long_prompt_in_blocks(models: Models, n_bytes_scores: int) -> None:
    """More rows than one block of scores has, and than one ubatch: by the CPU's kernel, and as a device ranks them,
    with memory for all scores of a head and with less."""
    counts = (900, 700, 300, 300, 100, 0)
    if n_bytes_scores == 1:
        counts = (60, 50, 20, 20, 10, 0)
    prompt, agreement = make_prompt(SHAPE, [40, counts[0] - 30, 9, 30, 30]), Agreement()
    reference = Reference(models.twin(SHAPE))
    with open_context(models, SHAPE, counts, 200) as ctx:
        compare(ctx, reference, prompt, counts, agreement, n_bytes_scores=n_bytes_scores)
    print(f"\n{agreement}", end="")
    agreement.check()


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
    agreement.check()


def test_append_is_decode(models: Models) -> None:
    """New text through prefill or through llama_decode gives the same."""
    prompt, text = make_prompt(SHAPE, [5, 24, 6]), make_prompt(SHAPE, [4], 3)
    with open_context(models, SHAPE, COUNTS) as a, open_context(models, SHAPE, COUNTS) as b:
        run(a, prompt, COUNTS)
        run(b, prompt, COUNTS)
        by_prefill = run(a, text, [0] * SHAPE.n_layer)
        for token in text.ids:
            by_decode = b.decode(token)
        assert distance(by_prefill, by_decode) < LIMITS.again
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
    agreement.check()


def test_embedding_rows_stay(models: Models) -> None:
    prompt = make_prompt(SHAPE, [5, 24, 6])
    rows = [ROW_EMBD if k == ROW_VISUAL else k for k in prompt.rows]
    with open_context(models, SHAPE, [24] * 6) as ctx:
        kept = ctx.prefill(rows, prompt.ids, prompt.visual.numpy(), [0])
        assert ctx.kept(5).tolist() == []
        ctx.clear()
        assert np.array_equal(kept, ctx.prefill(prompt.rows, prompt.ids, prompt.visual.numpy(), [24]))
