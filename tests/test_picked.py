"""Rows that are picked instead of merged, to compare with: which they are, and to which the others count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_local import VisualTokenConfig
from aim_local.reduction.merging import merged, picked
from aim_local.reduction.planner import merge_count


def drawn(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)


@given(st.integers(1, 60), st.floats(0.01, 1.0), st.sampled_from(["random", "grid"]))
def test_as_many_rows_as_merging_leaves_and_each_as_it_was(n: int, share: float, how: str) -> None:
    rows = drawn(n)
    found = merged(rows, VisualTokenConfig(merge_by=how, merge_retain=share))
    assert len(found.rows) == merge_count(n, share)
    assert np.array_equal(found.rows, rows[found.slots])
    assert (np.diff(found.slots) > 0).all()
    assert np.array_equal(found.owners[found.slots], np.arange(len(found.rows))), "a picked row is its own"
    assert found.sizes.sum() == n


@given(st.integers(2, 8), st.integers(1, 12), st.integers(0, 5))
def test_the_others_count_to_the_nearest_on_the_grid(side: int, n_keep: int, seed: int) -> None:
    n = side * side
    slots = np.sort(np.random.default_rng(seed).choice(n, min(n, n_keep), replace=False))
    owners = picked(drawn(n), slots).owners
    for i in range(n):
        far = [math.hypot(i // side - s // side, i % side - s % side) for s in slots]
        assert owners[i] == far.index(min(far))


def test_even_picks_are_even() -> None:
    slots = merged(drawn(36), VisualTokenConfig(merge_by="grid", merge_retain=0.25)).slots
    assert slots.tolist() == [2, 6, 10, 14, 18, 22, 26, 30, 34]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_picks_differ_by_frame_and_by_seed_and_are_repeatable(seed: int) -> None:
    tokens = VisualTokenConfig(merge_by="random", merge_retain=0.25, seed=seed)
    frames = [drawn(36, k) for k in range(4)]
    picks = [tuple(merged(rows, tokens).slots) for rows in frames]
    assert picks == [tuple(merged(rows, tokens).slots) for rows in frames]
    assert len(set(picks)) == 4
    other = VisualTokenConfig(merge_by="random", merge_retain=0.25, seed=seed + 7)
    assert picks[0] != tuple(merged(frames[0], other).slots)
