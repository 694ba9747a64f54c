"""Ward's clustering of rows natively, against scipy's linkage."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference_ward import partition, ward_merge
from thorough import examples, few

from aim_local.errors import UsageError
from aim_local.native.visual import Merged, ward_rows
from aim_local.native.visual import use_ward_kernel as use_kernel

KERNELS = ("avx512", "avx2", "plain")
REPEATABLE = settings(deadline=None, max_examples=examples(100), derandomize=True)


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    try:
        use_kernel(request.param)
    except UsageError as e:
        pytest.skip(str(e))
    yield request.param
    use_kernel(None)


def drawn(seed: int) -> tuple[np.ndarray, int]:
    """Rows without ties and how many to keep: clusters, noise, or both, far from the origin or near."""
    rng = np.random.default_rng(seed)
    n, d, centres = int(rng.integers(2, 240)), int(rng.integers(1, 700)), int(rng.integers(1, 20))
    places = rng.standard_normal((centres, d)) * rng.uniform(0, 5)
    noise = rng.standard_normal((n, d)) * rng.choice([1.0, 0.1, 1e-3])
    rows = places[rng.integers(0, centres, n)] + noise + rng.choice([0, 100]) * rng.standard_normal(d)
    return np.ascontiguousarray(rows, np.float32), int(rng.integers(1, n + 1))


def check(got: Merged, rows: np.ndarray, n_keep: int) -> None:
    """What is true of every clustering, however it came about."""
    assert got.rows.shape == (n_keep, rows.shape[1])
    assert sorted(set(got.owners.tolist())) == list(range(n_keep))
    assert got.slots.tolist() == [got.owners.tolist().index(c) for c in range(n_keep)]
    assert got.slots.tolist() == sorted(got.slots.tolist())
    assert got.sizes.tolist() == [got.owners.tolist().count(c) for c in range(n_keep)]
    for c in range(n_keep):
        mean = rows[got.owners == c].astype(np.float64).mean(0)
        np.testing.assert_allclose(got.rows[c], mean, rtol=1e-6, atol=1e-7 * max(1.0, float(np.abs(rows).max())))


# --- the partition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", few([range(20), range(20, 200)], 1), ids=str)
def test_partitions_are_scipys(kernel: str, seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn inputs, every kernel; n up to 240, width up to 700, tight clusters far from the origin among them."""
    worst, n_rows = 0.0, 0
    for seed in seeds:
        rows, n_keep = drawn(seed)
        want, slots, owners = ward_merge(rows, n_keep, by_medoid=False)
        got = ward_rows(rows, n_keep)
        assert got.owners.tolist() == owners, (seed, rows.shape, n_keep)
        assert got.slots.tolist() == slots
        worst = max(worst, float(np.abs(got.rows - want).max() / np.abs(rows).max()))
        n_rows += len(rows)
    with capsys.disabled():
        print(f"\n  {kernel}: {len(seeds)} partitions of {n_rows} rows are scipy's; means within {worst:.1e}")
    assert worst < 1e-7  # half a unit of float32: one rounding


@REPEATABLE
@given(seed=st.integers(1000, 10**6), threads=st.integers(1, 3))
def test_drawn_partitions_are_scipys(seed: int, threads: int) -> None:
    rows, n_keep = drawn(seed)
    got = ward_rows(rows, n_keep, n_threads=threads)
    assert got.owners.tolist() == partition(rows, n_keep)
    check(got, rows, n_keep)


def test_rows_far_from_the_origin(kernel: str) -> None:
    """2^18 away, where floats are 1/32 apart: products are 10^10 times the differences that matter."""
    for seed in range(5):
        rows = np.random.default_rng(seed).standard_normal((200, 2000), np.float32) + np.float32(2**18)
        for n_keep in (5, 20, 80):
            assert ward_rows(rows, n_keep).owners.tolist() == partition(rows, n_keep), seed


def test_a_large_window_is_scipys_on_every_number_of_threads() -> None:
    """Enough products for several threads."""
    rows = np.random.default_rng(5).standard_normal((1568, 300), np.float32)
    want = partition(rows, 150)
    found = [ward_rows(rows, 150, n_threads=n) for n in (1, 2, 3)]
    assert found[0].owners.tolist() == want
    for other in found[1:]:
        assert np.array_equal(other.owners, found[0].owners)
        assert other.rows.tobytes() == found[0].rows.tobytes()


def test_weights_are_rows_given_several_times(kernel: str) -> None:
    """scipy gets every row as often as its weight says: equal rows join at no cost, before all others."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows, _ = drawn(seed)
        rows = rows[:60]
        weights = rng.integers(1, 6, len(rows))
        n_keep = int(rng.integers(1, len(rows) + 1))
        repeated = np.repeat(np.arange(len(rows)), weights)
        labels = partition(rows[repeated], n_keep)
        got = ward_rows(rows, n_keep, weights.astype(np.float32))
        assert got.owners[repeated].tolist() == labels, seed
        for c in range(n_keep):
            mean = rows[repeated][np.array(labels) == c].astype(np.float64).mean(0)
            np.testing.assert_allclose(got.rows[c], mean, rtol=1e-5, atol=1e-6 * float(np.abs(rows).max()))


def test_weights_of_one_change_nothing() -> None:
    rows, n_keep = drawn(3)
    plain, weighted = ward_rows(rows, n_keep), ward_rows(rows, n_keep, np.ones(len(rows), np.float32))
    assert np.array_equal(plain.owners, weighted.owners)
    assert plain.rows.tobytes() == weighted.rows.tobytes()


# --- where a cluster stands ------------------------------------------------------------------------------------------


def test_medoids_are_the_members_nearest_to_the_mean() -> None:
    for seed in range(100):
        rows, n_keep = drawn(seed)
        want, slots, owners = ward_merge(rows, n_keep, by_medoid=True)
        got = ward_rows(rows, n_keep, medoids=True)
        assert got.slots.tolist() == slots, seed
        assert got.owners.tolist() == owners
        assert np.abs(got.rows - want).max() < 1e-6 * np.abs(rows).max()


def test_of_two_members_the_lower_is_the_medoid() -> None:
    """Both are equally far from their mean, whatever rounding says: here their values differ by 40 binary orders."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        pair = (rng.standard_normal((2, 64)) * 2.0 ** rng.integers(-20, 21, (2, 64))).astype(np.float32)
        assert ward_rows(pair, 1, medoids=True).slots.tolist() == [0]


# --- ties ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7e4])
def test_equal_rows_join_from_the_lowest_on(value: float) -> None:
    got = ward_rows(np.full((6, 3), value, np.float32), 3)
    assert got.owners.tolist() == [0, 0, 0, 0, 1, 2]
    assert got.slots.tolist() == [0, 4, 5]
    assert (got.rows == np.float32(value)).all()


def test_of_equal_distances_the_lower_pair_joins() -> None:
    """0 1 . 3 4 . 6 7: three pairs at the same distance, then the groups they make."""
    rows = np.array([[0], [1], [3], [4], [6], [7]], np.float32)
    assert [ward_rows(rows, n).owners.tolist() for n in (5, 4, 3, 2, 1)] == [
        [0, 0, 1, 2, 3, 4],
        [0, 0, 1, 1, 2, 3],
        [0, 0, 1, 1, 2, 2],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0],
    ]


@REPEATABLE
@given(
    rows=st.tuples(st.integers(1, 40), st.integers(1, 5)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.1]))
    ),
    share=st.floats(0, 1),
)
def test_ties_are_settled_by_the_input_alone(rows: np.ndarray, share: float) -> None:
    """Many equal rows and distances: the same on every thread count, and equal rows stay together while they can."""
    n_keep = max(1, round(share * len(rows)))
    got = ward_rows(rows, n_keep)
    check(got, rows, n_keep)
    for threads in (1, 2, 5):
        again = ward_rows(rows, n_keep, n_threads=threads)
        assert again.owners.tolist() == got.owners.tolist()
        assert again.rows.tobytes() == got.rows.tobytes()
    kinds = {row.tobytes(): set(got.owners[[r.tobytes() == row.tobytes() for r in rows]].tolist()) for row in rows}
    if n_keep <= len(kinds):
        assert all(len(owners) == 1 for owners in kinds.values())
    else:
        assert all(len({rows[i].tobytes() for i in np.flatnonzero(got.owners == c)}) == 1 for c in range(n_keep))


# --- edges -----------------------------------------------------------------------------------------------------------


def test_one_row_one_cluster_and_all() -> None:
    rows, _ = drawn(8)
    assert ward_rows(rows[:1], 1).rows.tobytes() == rows[:1].tobytes()
    check(ward_rows(rows, 1), rows, 1)
    every = ward_rows(rows, len(rows))
    assert every.rows.tobytes() == rows.tobytes()
    assert every.owners.tolist() == every.slots.tolist() == list(range(len(rows)))
    assert ward_rows(rows, len(rows), medoids=True).slots.tolist() == list(range(len(rows)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n_keep", [1, 5, 9])
def test_rows_that_are_not_finite_are_refused(value: float, n_keep: int) -> None:
    rows = np.zeros((9, 4), np.float32)
    rows[6, 2] = value
    with pytest.raises(UsageError, match="row 6 of 9 has a value that is no finite number"):
        ward_rows(rows, n_keep)


def test_values_of_any_size_are_taken() -> None:
    """The largest and the smallest floats: sums and squares are doubles."""
    rows = np.array([[3.4e38, -3.4e38], [-3.4e38, 3.4e38], [3.3e38, -3.4e38], [1e-45, 0]], np.float32)
    got = ward_rows(rows, 2)
    assert got.owners.tolist() == partition(rows, 2)
    assert np.isfinite(got.rows).all()


@pytest.mark.parametrize(
    ("n", "n_keep", "told"),
    [
        (4, 0, r"4 rows cannot become 0, it must lie in \[1, 4\]"),
        (4, 5, r"4 rows cannot become 5"),
        (4, -1, r"4 rows cannot become -1"),
        (0, 1, r"0 rows of width 2 cannot be clustered together; the number must lie in \[1, 16384\]"),
        (16385, 3, r"16385 rows of width 2 cannot be clustered together"),
    ],
)
def test_counts_that_cannot_be(n: int, n_keep: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ward_rows(np.zeros((n, 2), np.float32), n_keep)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_that_cannot_be(weight: float) -> None:
    weights = np.ones(4, np.float32)
    weights[2] = weight
    with pytest.raises(UsageError, match="the weight of row 2 is"):
        ward_rows(np.zeros((4, 2), np.float32), 2, weights)
    with pytest.raises(ValueError, match="needed is C-contiguous float32 4"):
        ward_rows(np.zeros((4, 2), np.float32), 2, np.ones(3, np.float32))


def test_an_unknown_kernel() -> None:
    with pytest.raises(UsageError, match="has no kernel quantum"):
        use_kernel("quantum")
