"""Scoring's CPU kernels beside the oracle in float64: every kernel that this CPU runs, over shapes and values."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference_aim import TEMPERATURE, Layer, pagerank
from staged_models import SHAPE, Models, make_prompt, open_context, run
from thorough import few

from aim_local.errors import ModelError, UsageError
from aim_local.native.staged import score_kernels, score_with

KERNELS = score_kernels()  # amx, avx512, avx2, plain; what this CPU lacks is missing
Floats = NDArray[np.float32]

LIMIT = 2e-3  # relative: f32 products of up to 400, times ten by the temperature, in an exponent


def score(kernel: str, q: Floats, k: Floats, sizes: NDArray[np.int64] | None = None) -> Floats:
    bias = None if sizes is None else (np.log(sizes) * q.shape[2] ** 0.5 * TEMPERATURE).astype(np.float32)
    return score_with(kernel, q, k, 1 / q.shape[2] ** 0.5 / TEMPERATURE, bias)


def oracle(q: Floats, k: Floats, sizes: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """The same in float64. Rows before q's are given queries of zero: what they attend to reaches no later row."""
    (n_q, n_head, _), (n_k, n_head_kv, d) = q.shape, k.shape
    whole = np.zeros((n_k, n_head, d))
    whole[n_k - n_q :] = q
    keys = np.repeat(k.astype(np.float64), n_head // n_head_kv, axis=1)
    heads = [torch.tensor(a).transpose(0, 1) for a in (whole, keys)]
    logs = torch.tensor(np.zeros(n_k) if sizes is None else np.log(sizes))
    scores = pagerank(Layer(heads[0], heads[1], heads[1], torch.arange(n_k), logs))
    return np.asarray(scores.numpy()[n_k - n_q :], np.float64)


def difference(found: Floats, expected: NDArray[np.float64]) -> float:
    """Largest relative difference of the scores above 1e-30: f32 ends at 1e-38."""
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    seen = expected > 1e-30
    assert (found[~seen] < 1.01e-30).all()
    return float(np.abs(found[seen] / expected[seen] - 1).max(initial=0))


def drawn(n_q: int, n_k: int, n_head: int, n_head_kv: int, d: int, seed: int = 0) -> tuple[Floats, Floats]:
    r = np.random.default_rng(seed)
    return (r.standard_normal((n_q, n_head, d)).astype(np.float32),
            r.standard_normal((n_k, n_head_kv, d)).astype(np.float32))  # fmt: skip


def test_the_plain_kernel_is_everywhere() -> None:
    assert KERNELS[-1] == "plain"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", few(range(24), 6))
def test_shapes(kernel: str, seed: int) -> None:
    """Rows and widths that are multiples of nothing, one of each, rows of earlier turns, shared keys."""
    r = random.Random(seed)
    n_q, n_kv = r.choice([1, 2, 31, 32, 33, 47, 48, 49, 100, 257]), r.choice([1, 2])
    q, k = drawn(n_q, n_q + r.choice([0, 0, 1, 15, 48, 300]), n_kv * r.choice([1, 3]), n_kv, r.choice([1, 8, 72, 80]))
    found = difference(score(kernel, q, k), oracle(q, k))
    print(f"\n  {kernel}, q {q.shape}, k {k.shape}: {found:.1e}", end="")
    assert found < LIMIT


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", few(range(12), 3))
def test_rows_that_stand_for_many(kernel: str, seed: int) -> None:
    """Sizes of 1 to 300 patches, in whole panels and behind them; sizes of one are no sizes, to the last bit."""
    r = np.random.default_rng(seed)
    n_q, n_past = int(r.choice([1, 31, 32, 49, 100, 257])), int(r.choice([0, 1, 48, 300]))
    q, k = drawn(n_q, n_q + n_past, 6, 2, int(r.choice([8, 64, 80])), seed)
    sizes = np.where(r.random(len(k)) < 0.5, r.integers(1, 300, len(k)), 1)
    found = difference(score(kernel, q, k, sizes), oracle(q, k, sizes))
    print(f"\n  {kernel}, q {q.shape}, k {k.shape}: {found:.1e}", end="")
    assert found < LIMIT
    assert np.array_equal(score(kernel, q, k, np.ones(len(k), np.int64)), score(kernel, q, k))


@pytest.mark.parametrize("kernel", KERNELS)
def test_many_rows(kernel: str) -> None:
    q, k = drawn(1500, 1669, 2, 1, 64)
    found = difference(score(kernel, q, k), oracle(q, k))
    print(f"\n  {kernel}: {found:.1e}", end="")
    assert found < LIMIT


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [0.0, 1e-20, 30.0])
def test_flat_and_steep_attention(kernel: str, size: float) -> None:
    """All weights equal; and logits of ten thousands, of which one takes everything."""
    q, k = drawn(70, 90, 2, 1, 16)
    q *= size
    found, expected = score(kernel, q, k), oracle(q, k)
    assert np.abs(found - expected).max() <= 1e-5 * expected.max()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_comes_out(kernel: str, value: float) -> None:
    q, k = drawn(70, 70, 2, 1, 16)
    q[50, 1, 3] = value
    assert not np.isfinite(score(kernel, q, k)).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_head_that_repeats_counts_once(kernel: str) -> None:
    q, k = drawn(64, 64, 1, 1, 32)
    once, twice = score(kernel, q, k), score(kernel, np.repeat(q, 2, axis=1), k)
    np.testing.assert_allclose(once, twice, rtol=1e-6)


def test_what_cannot_be_scored_is_refused() -> None:
    q, k = drawn(4, 4, 2, 1, 8)
    with pytest.raises(ModelError, match="no scoring kernel mmx; this CPU has"):
        score("mmx", q, k)
    with pytest.raises(UsageError, match=r"bias has shape \(3,\)"):
        score_with(KERNELS[0], q, k, 1.0, np.zeros(3, np.float32))
    with pytest.raises(UsageError, match="4 of 3 rows, 2 heads"):
        score(KERNELS[0], q, k[:3])


def test_threads_do_not_change_scores(models: Models) -> None:
    counts, found = (300, 200, 200, 100, 50, 0), []
    prompt = make_prompt(SHAPE, [9, 300, 12])
    for n_threads in (1, 2, 3):
        with open_context(models, SHAPE, counts, 60, n_threads=n_threads) as ctx:
            run(ctx, prompt, counts)
            scores = ctx.importance(0)
            assert scores is not None
            found.append(scores.tolist())
    assert found[0] == found[1] == found[2]
