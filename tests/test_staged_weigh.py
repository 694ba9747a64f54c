"""Rows that count as the patches they stand for, against the independent oracle: kept sets, scores and logits.

The oracle adds log(size) to a row's column of every layer's attention logits, and to those that rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from limits import LIMITS
from reference_aim import Reference, last_query
from staged_models import COUNTS, SHAPE, Models, Prompt, distance, make_prompt, open_context, run
from staged_oracle import Agreement, compare, decode_both
from test_staged_parity import draw
from thorough import few

from aim_local.errors import ModelError, NativeError, UsageError
from aim_local.native.library import llama
from aim_local.native.staged import StagedContext

N_CONFIGS, MOST = 24, 150
WHOLE = (24,) * 6  # nothing is pruned


def oracle(models: Models, shape: Any = SHAPE) -> Reference:
    return Reference(models.twin(shape))


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 4))
def test_parity(models: Models, seed: int) -> None:
    shape, parts, counts, options = draw(seed)
    if seed % 6 == 0:
        counts = [counts[0]] * len(counts)  # merged only
    prompt, agreement, reference = make_prompt(shape, parts, seed, most=MOST), Agreement(), oracle(models, shape)
    with open_context(models, shape, counts, n_text=len(prompt.ids) - counts[0] + 40, **options) as ctx:
        logits = compare(ctx, reference, prompt, counts, agreement)
        decode_both(ctx, reference, logits, 16, agreement)
    print(f"\n{seed:2}: {shape.arch}, parts {parts}, counts {counts}, {options}: {agreement}", end="")
    agreement.check()


def test_it_matters(models: Models) -> None:
    """What the other tests compare is no accident: the same rows without sizes give other logits."""
    prompt = make_prompt(SHAPE, [5, 24, 6], most=MOST)
    with open_context(models, SHAPE, WHOLE) as ctx, open_context(models, SHAPE, WHOLE) as other:
        apart = distance(run(ctx, prompt, WHOLE), run(other, replace(prompt, sizes=None), WHOLE))
    assert apart > 0.05


@pytest.mark.parametrize("flash_attn", [False, True])
def test_off_is_what_it_was_to_the_last_bit(models: Models, flash_attn: bool) -> None:
    """No sizes, and sizes of one, prefill and decode; the state has not one byte more."""
    plain, ones = (replace(make_prompt(SHAPE, [5, 24, 6]), sizes=sizes) for sizes in (None, [1] * 35))
    found = []
    for prompt in (plain, ones):
        with open_context(models, SHAPE, COUNTS, flash_attn=flash_attn) as ctx:
            found.append([run(ctx, prompt, COUNTS).tobytes(), ctx.decode(3).tobytes(), bytes(ctx.state())])
    assert found[0] == found[1]


@pytest.mark.parametrize("n_bytes_scores", [0, 1 << 20, 1])
def test_as_a_device_ranks(models: Models, n_bytes_scores: int) -> None:
    """ggml's ops: all scores of a head at once, in blocks, row by row."""
    counts = (60, 50, 20, 20, 10, 0)
    prompt, agreement = make_prompt(SHAPE, [40, 30, 9, 30, 30], most=MOST), Agreement()
    with open_context(models, SHAPE, counts, 200) as ctx:
        compare(ctx, oracle(models), prompt, counts, agreement, n_bytes_scores=n_bytes_scores)
    agreement.check()


def test_last_query(models: Models) -> None:
    prompt, agreement = make_prompt(SHAPE, [5, 24, 6], most=MOST), Agreement()
    with open_context(models, SHAPE, COUNTS, n_ubatch=8) as ctx:
        compare(ctx, oracle(models), prompt, COUNTS, agreement, last_query, importance="last_query")
    agreement.check()


@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("kv", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("arch", ["qwen2", "llama"])
def test_caches(models: Models, arch: str, kv: str, flash_attn: bool) -> None:
    """Nothing pruned, so that a near tie decides nothing. With flash attention the mask is half floats and so are
    products; what that costs is measured with equal rows, and sizes may cost as much again."""
    if kv == "q8_0" and not flash_attn:
        pytest.skip("llama.cpp has no quantised V cache without flash attention")
    shape, counts = replace(SHAPE, arch=arch, d_head=64), (196,) * 6
    apart = []
    for most in (None, MOST):
        prompt, agreement, reference = make_prompt(shape, [10, 196, 20], most=most), Agreement(), oracle(models, shape)
        with open_context(models, shape, counts, 64, type_k=kv, type_v=kv, flash_attn=flash_attn) as ctx:
            logits = compare(ctx, reference, prompt, counts, agreement, exact=False)
            for token in (3, 4):  # given ones: what follows from a near tie is no rounding
                logits = torch.tensor(ctx.decode(token))
                agreement.logits = max(agreement.logits, distance(logits, reference.decode(token)))
        apart.append(agreement.logits)
    print(f"\n{arch}, KV {kv}, flash attention {flash_attn}: {apart[0]:.1e} equal, {apart[1]:.1e} with sizes", end="")
    assert apart[1] < (1e-3 if not flash_attn else max(1e-3, 2 * apart[0]))


@pytest.mark.parametrize("precision", ["exact", "auto"])
def test_kernels_of_many_queries(models: Models, precision: str) -> None:
    """ggml's flash attention and our own read the same mask; equal rows are far away from both."""
    shape, counts = replace(SHAPE, d_head=64), (300,) * 6
    prompt, reference = make_prompt(shape, [10, 300, 20], most=MOST), Reference(models.twin(shape))
    want = reference.prefill(prompt.embeds(reference), prompt.is_visual, counts, sizes=prompt.sizes).logits
    with open_context(models, shape, counts, 64, flash_attn=True, precision=precision, type_v="f16") as ctx:
        apart = distance(run(ctx, prompt, counts), want)
        ctx.clear()
        equal = distance(run(ctx, replace(prompt, sizes=None), counts), want)
    print(f"\n{precision}: {apart:.1e}, equal rows {equal:.1e}", end="")
    assert apart < 0.01 < 0.2 < equal


# --- later turns, states, moved rows ----------------------------------------------------------------------------------


FIRST, LATER = make_prompt(SHAPE, [5, 24, 6], most=MOST), make_prompt(SHAPE, [3, 12, 7], seed=9, most=MOST)
ANSWER = [7, 8, 9]


def joined(first: Prompt, answer: list[int], later: Prompt) -> Prompt:
    assert first.sizes is not None
    assert later.sizes is not None
    ids, sizes = [*first.ids, *answer, *later.ids], [*first.sizes, *[1] * len(answer), *later.sizes]
    return Prompt(ids, torch.cat([first.visual, later.visual]), sizes)


def begun(models: Models, counts: tuple[int, ...] = COUNTS, **options: Any) -> StagedContext:
    ctx = open_context(models, SHAPE, [n + m for n, m in zip(counts, COUNTS, strict=True)], 80, **options)
    run(ctx, FIRST, counts)
    for token in ANSWER:
        ctx.decode(token)
    return ctx


@pytest.mark.parametrize("saved", [False, True])
def test_earlier_rows_ranked_again(models: Models, saved: bool) -> None:
    """A conversation of two clips, saved between them or not: the oracle's prefill of all of it, decode behind it."""
    whole, agreement, reference = joined(FIRST, ANSWER, LATER), Agreement(), oracle(models)
    counts = [int(36 * n / 24 + 1e-9) for n in COUNTS]
    sizes = [*[1] * (len(whole.ids) - len(LATER.ids)), *(LATER.sizes or [])]  # of the rows held none are read
    with begun(models, hold="queries") as first, begun(models, hold="queries") as other:
        ctx = first
        if saved:
            other.clear()
            other.restore(first.state())
            ctx = other
        logits = ctx.prefill(
            whole.rows, whole.ids, LATER.visual.numpy(), [counts[il] for il in ctx.plan.il_begin],
            n_held=ctx.n_past, sizes=sizes,
        )  # fmt: skip
        kept = [ctx.kept(il).tolist() for il in range(SHAPE.n_layer)]
        expected = reference.prefill(
            whole.embeds(reference), whole.is_visual, counts, dict(enumerate(kept)), sizes=whole.sizes
        )
        for il in expected.chosen:
            assert expected.apart(il, kept[il]) < LIMITS.tie
        agreement.logits = distance(logits, expected.logits)
        decode_both(ctx, reference, torch.tensor(logits).double(), 4, agreement)
    print(f"\n{agreement}", end="")
    agreement.check()


def test_earlier_rows_that_stay_as_they_are(models: Models) -> None:
    """Keys only: their sizes still count, for the new rows and what ranks them."""
    agreement, reference = Agreement(), oracle(models)
    counts = [int(12 * share) for share in (1, 1, 0.75, 0.5, 0.25, 0)]
    plan = [a + b for a, b in zip(COUNTS, counts, strict=True)]
    with open_context(models, SHAPE, plan, 80, n_ubatch=16) as ctx:
        logits = compare(ctx, reference, FIRST, COUNTS, agreement)
        decode_both(ctx, reference, logits, 3, agreement)
        logits = compare(ctx, reference, LATER, counts, agreement)
        decode_both(ctx, reference, logits, 4, agreement)
    agreement.check()


def test_a_turn_taken_back_leaves_no_weight(models: Models) -> None:
    """Other rows at its positions, one patch each."""
    text = make_prompt(SHAPE, [30], seed=3)
    with begun(models) as ctx, begun(models) as calm:
        at = ctx.n_past
        run(ctx, LATER, [int(12 * n / 24) for n in COUNTS])
        ctx.truncate(at)
        none = [0] * SHAPE.n_layer
        assert ctx.state() == calm.state()
        assert run(ctx, text, none).tobytes() == run(calm, text, none).tobytes()


def test_what_fails_leaves_no_weight(models: Models) -> None:
    with begun(models) as ctx:
        before = ctx.state()
        with pytest.raises(ValueError, match="no"):
            run(ctx, LATER, [int(12 * n / 24) for n in COUNTS], select=lambda il, scores, n: int("no"))
        assert ctx.state() == before


def test_moved_rows_take_their_weight_along(models: Models) -> None:
    """All positions three further on: attention is relative, so the next logits are the same to rounding."""
    with begun(models, WHOLE) as ctx, begun(models, WHOLE) as calm:
        llama.llama_memory_seq_add(ctx.memory, 0, 0, -1, 3)
        apart = distance(ctx.decode(5), calm.decode(5))
    print(f"\n{apart:.1e}", end="")
    assert apart < 1e-4


def test_states(models: Models) -> None:
    """Weights come back with a state; one without them, as every state was before there were any, has none."""
    with begun(models) as ctx, begun(models) as calm:
        with open_context(models, SHAPE, [2 * n for n in COUNTS], 80) as plain:
            run(plain, replace(FIRST, sizes=None), COUNTS)
            for token in ANSWER:
                plain.decode(token)
            bare, whole = plain.state(), ctx.state()
            want = plain.decode(3)
        n_heavy = sum(size > 1 for size in FIRST.sizes or [])
        assert len(whole) - len(bare) == 8 + 8 * n_heavy
        calm.restore(whole)
        assert np.array_equal(ctx.decode(3), calm.decode(3))
        calm.restore(bare)  # takes the weights of what was there before away
        assert distance(calm.decode(3), want) < LIMITS.again
        for damaged in (whole[:-4], whole[:-4] + b"\xff\xff\xff\xff"):
            with pytest.raises(NativeError, match="does not fit"):
                calm.restore(bytearray(damaged))
            assert calm.n_past == 0


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([1] * 34, "sizes has shape"),
        ([0] * 35, "row 5 stands for 0 patches; allowed are 1 to 16777216"),
        ([1 << 25] * 35, "row 5 stands for 33554432 patches"),
    ],
)
def test_refused(models: Models, sizes: list[int], words: str) -> None:
    with open_context(models, SHAPE, COUNTS) as ctx:
        with pytest.raises((UsageError, ModelError), match=words):
            run(ctx, replace(FIRST, sizes=sizes), COUNTS)
        assert ctx.n_past == 0
