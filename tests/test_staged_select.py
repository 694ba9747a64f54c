"""Which rows stay in a staged prefill when no score decides alone: random, grid, a callback and all its faults."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from staged_models import COUNTS, SHAPE, Models, make_prompt, open_context, run

from aim_local.errors import NativeError, UsageError


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
