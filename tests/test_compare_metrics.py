"""The statistics of a comparison against scipy, against figures computed by hand, and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats
from thorough import examples

from aim_local.lab.compare.metrics import (
    divergence,
    kl_divergence,
    log_softmax,
    mcnemar,
    top1_equal,
    wilson,
)

LOGITS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[arrays(np.float32, (3, n), elements=st.floats(-80, 80, width=32))] * 2)
)
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=300)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=examples(80), deadline=None)
def test_wilson_is_scipys(k_n: tuple[int, int]) -> None:
    k, n = k_n
    truth = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    rate = wilson(k, n)
    assert (rate.k, rate.n, rate.share) == (k, n, k / n)
    assert rate.low == pytest.approx(truth.low, abs=1e-12)
    assert rate.high == pytest.approx(truth.high, abs=1e-12)
    assert 0 <= rate.low <= rate.share <= rate.high <= 1


def test_wilson_by_hand() -> None:
    # 8 of 10: (0.8 + z2/20) / (1 + z2/10) = 0.71672, half width 0.22655 with z = 1.95996
    rate = wilson(8, 10)
    assert (rate.low, rate.high) == (pytest.approx(0.49016, abs=1e-5), pytest.approx(0.94331, abs=1e-5))


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_of_nothing_is_an_error(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="k of n"):
        wilson(k, n)


@given(PAIRS)
@settings(max_examples=examples(80), deadline=None)
def test_mcnemar_is_scipys_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    reference, here = [r for r, _ in pairs], [h for _, h in pairs]
    paired = mcnemar(reference, here)
    table = [[sum(p == (r, h) for p in pairs) for h in (True, False)] for r in (True, False)]
    assert (paired.only_reference, paired.only_here, paired.n) == (table[0][1], table[1][0], len(pairs))
    discordant = paired.only_reference + paired.only_here
    truth = stats.binomtest(paired.only_here, discordant).pvalue if discordant else 1.0
    assert paired.p == pytest.approx(truth, rel=1e-9, abs=1e-300)
    assert mcnemar(here, reference).p == paired.p


def test_mcnemar_by_hand() -> None:
    # 1 against 6: 2 * (C(7,0) + C(7,1)) / 2^7 = 16/128
    assert mcnemar([True] * 6 + [False] * 3, [False] * 6 + [True] + [False] * 2).p == 0.125
    assert mcnemar([True, False], [True, False]).p == 1.0
    assert mcnemar([], []).p == 1.0
    assert 0 < mcnemar([True] * 1000, [False] * 1000).p < 1e-290  # 2^-999, no underflow on the way


def test_mcnemar_needs_the_same_items() -> None:
    with pytest.raises(ValueError, match="shorter"):
        mcnemar([True, True], [True])


def test_three_tokens_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): 1/2 ln 2 + 0 - 1/4 ln 2 = 1/4 ln 2
    p, q = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.25, 0.5]])
    assert kl_divergence(p, q)[0] == pytest.approx(0.25 * math.log(2), abs=1e-15)
    # not symmetric: p = (1/2, 1/2, 0), q = (1/4, 1/4, 1/2): ln 2; the other way round infinite
    with np.errstate(divide="ignore"):
        p = np.log([[0.5, 0.5, 0.0]])
    assert kl_divergence(p, np.log([[0.25, 0.25, 0.5]]))[0] == pytest.approx(math.log(2), abs=1e-15)
    assert kl_divergence(np.log([[0.25, 0.25, 0.5]]), p)[0] == math.inf
    assert kl_divergence(p, p)[0] == 0.0


@given(LOGITS)
@settings(max_examples=examples(80), deadline=None)
def test_kl_divergence_is_scipys(logits: tuple[np.ndarray, np.ndarray]) -> None:
    reference, here = (x.astype(np.float64) for x in logits)
    truth = special.rel_entr(special.softmax(reference, -1), special.softmax(here, -1)).sum(-1)
    found = kl_divergence(*logits)
    assert found.dtype == np.float64
    assert found.shape == (3,)
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)
    assert (found >= 0).all()


@given(LOGITS, st.floats(-50, 50))
@settings(max_examples=examples(50), deadline=None)
def test_a_constant_added_changes_nothing_and_a_distribution_is_its_own(
    logits: tuple[np.ndarray, np.ndarray], constant: float
) -> None:
    reference, here = (x.astype(np.float64) for x in logits)
    assert kl_divergence(reference, reference).max() == 0.0
    np.testing.assert_allclose(kl_divergence(reference, reference + constant), 0, atol=1e-6)
    np.testing.assert_allclose(kl_divergence(reference, here + constant), kl_divergence(reference, here), atol=1e-9)


def test_half_precision_logits_of_a_real_vocabulary_do_not_lose_the_divergence() -> None:
    """float16 sums over 150 000 tokens overflow; the figures must come from float64."""
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 4, (2, 151_936)).astype(np.float16)
    here = (reference + rng.normal(0, 0.05, reference.shape)).astype(np.float16)
    p, q = (special.softmax(x.astype(np.float64), -1) for x in (reference, here))
    np.testing.assert_allclose(kl_divergence(reference, here), special.rel_entr(p, q).sum(-1), rtol=1e-9)


def test_log_softmax_is_scipys_also_for_large_and_impossible_logits() -> None:
    rows = np.array([[1e4, 1e4 - 1, -1e4], [-np.inf, 0.0, 3.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(log_softmax(rows), special.log_softmax(rows, -1), rtol=1e-12)
    assert log_softmax(rows)[1, 0] == -np.inf


@pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_logits_that_are_no_distribution_are_errors(row: list[float]) -> None:
    with pytest.raises(ValueError, match="no distribution"):
        kl_divergence([row], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="no distribution"):
        kl_divergence([[0.0, 0.0]], [row])


def test_vocabularies_of_different_size_are_an_error() -> None:
    for measure in (kl_divergence, top1_equal):
        with pytest.raises(ValueError, match=r"\[1, 3\] and \[1, 4\]"):
            measure(np.zeros((1, 3)), np.zeros((1, 4)))


def test_top1_compares_the_likeliest_tokens() -> None:
    reference = [[0.0, 2.0, 1.0], [5.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    here = [[0.0, 9.0, 1.0], [0.0, 0.0, 5.0], [1.0, 0.0, 0.0]]
    assert top1_equal(reference, here).tolist() == [True, False, True]  # of equal ones the first counts
    with pytest.raises(ValueError, match="NaN"):
        top1_equal([[math.nan, 0.0]], [[0.0, 1.0]])


@given(st.lists(st.floats(0, 30), min_size=1, max_size=500))
@settings(max_examples=examples(50), deadline=None)
def test_divergence_summarises_as_numpy_does(values: list[float]) -> None:
    summary = divergence(values, [v < 1 for v in values])
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.median == pytest.approx(np.median(values))
    assert summary.p99 == pytest.approx(np.percentile(values, 99))
    assert (summary.n, summary.top1.k) == (len(values), sum(v < 1 for v in values))


def test_an_infinite_divergence_is_told_not_lost() -> None:
    summary = divergence([0.1] * 150 + [math.inf], [True] * 151)
    assert (summary.mean, summary.median, summary.p99) == (math.inf, 0.1, 0.1)  # position 148.5: both neighbours 0.1
    assert divergence([0.1] * 30 + [math.inf], [True] * 31).p99 == math.inf
    assert divergence([0.1, math.inf, math.inf], [True] * 3).p99 == math.inf


def test_divergence_of_nothing_is_an_error() -> None:
    for values, top1 in (([], []), ([0.1], []), ([math.nan], [True])):
        with pytest.raises(ValueError, match="diverg"):
            divergence(values, top1)
