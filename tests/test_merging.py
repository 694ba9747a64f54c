"""Pooling and token merging of one frame natively, against torch and an independent numpy version."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_merging import drawn_rows, numpy_merge
from thorough import examples

from aim_local.errors import UsageError
from aim_local.native.visual import merge_count, merge_rows, pool_rows, pool_side
from aim_local.reduction.planner import merge_count as planned_count

# the same draws every time: one in ten thousand has a tie within 1e-7, which float32 may settle the other way
REPEATABLE = settings(deadline=None, max_examples=examples(150), derandomize=True)

# --- pooling ---------------------------------------------------------------------------------------------------------


def test_pooling_equals_torch_interpolate() -> None:
    torch = pytest.importorskip("torch")
    worst = 0.0
    for side in range(1, 28):
        rows = drawn_rows(side, side * side, 12)
        grid = torch.from_numpy(rows).reshape(1, side, side, -1).permute(0, 3, 1, 2)
        want = torch.nn.functional.interpolate(grid, size=[math.ceil(side / 2)] * 2, mode="bilinear")
        got = pool_rows(rows, side)
        assert got.shape == (pool_side(side) ** 2, 12)
        worst = max(worst, float(np.abs(got - want[0].flatten(1).T.numpy()).max()))
    print(f"pooling: largest difference to torch over sides 1..27: {worst:.2e}")
    assert worst < 5e-6  # 4e-6 where torch was built without fused multiply-add


def test_pooling_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="9x4"):
        pool_rows(np.zeros((8, 4), np.float32), 3)
    with pytest.raises(ValueError, match="float32"):
        pool_rows(np.zeros((9, 4), np.float64), 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="side is 0"):
        pool_side(0)


# --- token merging ---------------------------------------------------------------------------------------------------


SHARES = (1.0, 0.99, 0.75, 0.5, 0.4375, 1 / 3, 0.25, 0.1, 0.0156, 1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 49, 196, 576])
@pytest.mark.parametrize("retain", SHARES)
def test_merging_equals_numpy(n: int, retain: float) -> None:
    rows = drawn_rows(n, n, 48)
    want_rows, want_slots, want_owners = numpy_merge(rows, retain)
    got = merge_rows(rows, retain)
    assert len(got.rows) == merge_count(n, retain) == len(want_slots)
    assert got.slots.tolist() == want_slots
    assert got.owners.tolist() == want_owners
    assert np.abs(got.rows - want_rows).max() < 1e-5


@REPEATABLE
@given(n=st.integers(1, 120), n_embd=st.integers(16, 64), retain=st.floats(1e-3, 1.0), seed=st.integers(0, 10**6))
def test_merging_equals_numpy_on_drawn_shapes(n: int, n_embd: int, retain: float, seed: int) -> None:
    rows = drawn_rows(seed, n, n_embd)
    want_rows, want_slots, want_owners = numpy_merge(rows, retain)
    got = merge_rows(rows, retain, n_threads=1 + seed % 3)
    assert got.slots.tolist() == want_slots
    assert got.owners.tolist() == want_owners
    assert np.abs(got.rows - want_rows).max() < 1e-5


def test_merging_counts_of_the_paper() -> None:
    assert merge_count(196, 0.25) == 49
    assert merge_count(576, 0.4375) == 252
    assert merge_count(10, 0.7) == 7  # 10 * 0.7 is 7.000000000000001, and 6.99999988 as float32
    assert merge_count(0, 0.5) == 0
    assert merge_rows(drawn_rows(1, 196, 64), 0.25).slots.tolist() == list(range(3, 196, 4))


@settings(deadline=None, max_examples=examples(500), derandomize=True)
@given(n=st.integers(0, 50_000), retain=st.floats(1e-6, 1.0) | st.fractions("1/997", 1, max_denominator=997).map(float))
def test_planned_count_is_the_merged_count(n: int, retain: float) -> None:
    assert planned_count(n, retain) == merge_count(n, retain)


@pytest.mark.parametrize("denominator", [100, 196, 729, 1000])
def test_counts_of_awkward_fractions_are_exact(denominator: int) -> None:
    """0.29 * 100 is 28.999999999999996: both sides must give the floor of the true fraction."""
    for n in (1, 49, 100, 196, 576, 729, 9409):
        for k in range(1, denominator + 1):
            want = max(1, n * k // denominator)
            assert planned_count(n, k / denominator) == merge_count(n, k / denominator) == want, (n, k)


def test_merging_settles_ties_by_index() -> None:
    rows = np.ones((9, 5), np.float32)
    got = merge_rows(rows, 7 / 9)
    assert got.slots.tolist() == [1, 3, 4, 5, 6, 7, 8]  # sources 0 and 2 go, into row 1
    assert got.owners.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_merging_bears_zero_rows() -> None:
    rows = drawn_rows(3, 20, 8)
    rows[4] = rows[5] = 0
    assert np.isfinite(merge_rows(rows, 0.25).rows).all()


def test_merging_does_not_depend_on_threads() -> None:
    rows = drawn_rows(5, 729, 64)
    one, three = merge_rows(rows, 0.3, n_threads=1), merge_rows(rows, 0.3, n_threads=3)
    assert np.array_equal(one.rows, three.rows)
    assert np.array_equal(one.owners, three.owners)


@pytest.mark.parametrize("retain", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_merging_refuses_other_shares(retain: float) -> None:
    with pytest.raises(UsageError, match=r"must lie in \(0, 1\]"):
        merge_rows(drawn_rows(1, 4, 4), retain)
