"""The test of a loss smaller than a margin: against published examples, an independent fit, counts of its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from thorough import examples

from aim_local.lab.compare.noninferiority import (
    ALPHA,
    MIN_QUESTIONS,
    POWER,
    holm,
    needed_for,
    p_value,
    questions_needed,
    score,
    score_interval,
)
from aim_local.lab.compare.records import Paired

COUNTS = st.integers(1, 3000).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda lost: st.tuples(st.just(lost), st.integers(0, n - lost), st.just(n))  # only the sum has to fit
    )
)
FEW = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3000)).map(lambda t: (t[0], t[1], sum(t) + 1))


def test_tangos_own_example() -> None:
    """Tango (1998), section 6.1: 44 pairs, one discordant; margin 0.1, 5 %: Z 1.709, p 0.044, limit -0.096."""
    assert score(1, 0, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert p_value(1, 0, 44, 0.1) == pytest.approx(0.044, abs=5e-4)
    assert score_interval(1, 0, 44, 0.05)[0] == pytest.approx(-0.096, abs=5e-4)


def test_an_example_of_a_textbook() -> None:
    """Fagerland, Lydersen and Laake (2017), chapter 8, response of 161 patients: -0.0621 (-0.1240, -0.0054)."""
    assert score_interval(16, 6, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def independent(lost: int, gained: int, n: int, difference: float) -> float:
    """The score statistic with the constrained maximum of the likelihood searched, not solved for."""
    both = n - lost - gained
    low = max(0.0, -difference)

    def surprise(share_lost: float) -> float:
        terms = ((lost, share_lost), (gained, share_lost + difference), (both, 1 - 2 * share_lost - difference))
        return -sum(k * math.log(max(share, 1e-300)) for k, share in terms if k)

    found = optimize.minimize_scalar(
        surprise, bounds=(low, (1 - difference) / 2), options={"xatol": 1e-12}, method="bounded"
    )
    variance = 2 * found.x + difference - difference**2
    return (gained - lost - n * difference) / math.sqrt(n * variance)


@pytest.mark.parametrize("counts", [(3, 1, 60), (17, 4, 200), (0, 5, 90), (12, 12, 3000), (1, 0, 400)])
@pytest.mark.parametrize("difference", [-0.2, -0.01, 0.03])
def test_the_statistic_is_the_score_test(counts: tuple[int, int, int], difference: float) -> None:
    assert score(*counts, difference) == pytest.approx(independent(*counts, difference), rel=1e-4, abs=1e-4)


@given(COUNTS)
@settings(max_examples=examples(80), deadline=None)
def test_without_a_margin_it_is_mcnemars(counts: tuple[int, int, int]) -> None:
    lost, gained, n = counts
    expected = (gained - lost) / math.sqrt(gained + lost) if gained != lost else 0.0
    assert score(lost, gained, n, 0.0) == pytest.approx(expected, abs=1e-9)


@given(COUNTS)
@settings(max_examples=examples(80), deadline=None)
def test_the_interval_holds_what_was_seen_and_mirrors(counts: tuple[int, int, int]) -> None:
    lost, gained, n = counts
    low, high = score_interval(lost, gained, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert low < high
    assert score_interval(gained, lost, n) == pytest.approx((-high, -low), abs=1e-9)
    wide_low, wide_high = score_interval(lost, gained, n, ALPHA / 10)
    assert wide_low <= low
    assert high <= wide_high


@given(COUNTS, st.floats(0.001, 0.2))
@settings(max_examples=examples(80), deadline=None)
def test_the_test_and_the_interval_say_the_same(counts: tuple[int, int, int], margin: float) -> None:
    low, p = score_interval(*counts)[0], p_value(*counts, margin)
    if abs(p - ALPHA) > 1e-6:
        assert (low > -margin) == (p < ALPHA)


# --- how often it errs ------------------------------------------------------------------------------------------------


def error(n: int, margin: float, gained: float) -> float:
    """How often a cell that loses just the margin passes: the sum over all counts, none drawn."""
    lost = margin + gained
    top = int(stats.binom.ppf(1 - 1e-9, n, lost))
    total = 0.0
    for b in range(top + 1):
        # of the others, c are gained
        c = np.arange(int(stats.binom.ppf(1 - 1e-9, n - b, gained / (1 - lost))) + 1)
        passes = np.array([p_value(b, int(k), n, margin) < ALPHA for k in c])
        total += stats.binom.pmf(b, n, lost) * float(stats.binom.pmf(c, n - b, gained / (1 - lost)) @ passes)
    return total


@pytest.mark.parametrize(
    ("n", "margin", "gained"),
    [(100, 0.05, 0.0), (400, 0.01, 0.0), (500, 0.01, 0.005), (800, 0.01, 0.02), (300, 0.02, 0.01), (60, 0.1, 0.05)],
)
def test_a_cell_on_the_margin_seldom_passes(n: int, margin: float, gained: float) -> None:
    """Nominal are 2.5 %; the score test's exact size stays about there, also with few or no questions gained."""
    assert error(n, margin, gained) < 0.032


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(12)
    for n, lost, gained in ((300, 0.05, 0.02), (1000, 0.01, 0.01), (200, 0.03, 0.0)):
        draws = rng.multinomial(n, [lost, gained, 1 - lost - gained], size=800)
        counted: dict[tuple[int, int], tuple[float, float]] = {}
        hits = 0
        for b, c, _ in draws.tolist():
            low, high = counted.setdefault((b, c), score_interval(b, c, n))
            hits += low <= gained - lost <= high
        assert 0.93 < hits / 800 < 0.985, (n, lost, gained)


# --- how many are needed ----------------------------------------------------------------------------------------------


@given(FEW, st.sampled_from([0.002, 0.01, 0.02, 0.1, 0.2]), st.sampled_from([ALPHA, ALPHA / 5, ALPHA / 24]))
@settings(max_examples=examples(80), deadline=None)
def test_more_are_needed_than_were_asked(counts: tuple[int, int, int], margin: float, alpha: float) -> None:
    lost, gained, n = counts
    needed = questions_needed(lost, gained, n, margin, alpha)
    assert n < needed < 1e9
    # never fewer than would do if not one answer differed
    assert p_value(0, 0, needed, margin) < alpha
    # stricter is more; as is a smaller margin
    assert questions_needed(lost, gained, 1 + lost + gained, margin, alpha / 2) >= questions_needed(
        lost, gained, 1 + lost + gained, margin, alpha
    )


def test_without_any_difference_it_is_what_n_equal_answers_need() -> None:
    for margin, n in ((0.01, 381), (0.02, 189), (0.05, 73)):
        assert questions_needed(0, 0, 1, margin) == n
        assert p_value(0, 0, n, margin) < ALPHA < p_value(0, 0, n - 1, margin)


def test_nams_formula_by_hand() -> None:
    """4 lost and 4 gained of 200, margin 2 points: V1 = 0.04; at the margin B = -0.08, C = 0.000408, V0 = 0.0489."""
    b, c = (2 - 0.02 + 0.02) * -0.02 - 0.04, 0.02 * 0.02 * 1.02
    share = (math.sqrt(b * b - 8 * c) - b) / 4
    v0 = 2 * share - 0.02 * 1.02
    n = ((1.959964 * math.sqrt(v0) + 0.841621 * math.sqrt(0.04)) / 0.02) ** 2
    assert questions_needed(4, 4, 200, 0.02) == math.ceil(n) == 888


def test_where_the_planned_number_did_not_do_half_of_the_margin_is_taken_for_lost() -> None:
    """17 lost and 15 gained of 2000, 1 point: 1,506 were planned, so the same for a true loss of half a point."""
    discordant, lost_truly = 32 / 2000, 0.005
    lost, gained = (discordant + lost_truly) / 2, (discordant - lost_truly) / 2
    b, c = (2 - gained + lost) * -0.01 - (gained + lost), lost * 0.01 * 1.01
    v0 = 2 * (math.sqrt(b * b - 8 * c) - b) / 4 - 0.01 * 1.01
    n = ((1.959964 * math.sqrt(v0) + 0.841621 * math.sqrt(discordant - lost_truly**2)) / lost_truly) ** 2
    assert questions_needed(17, 15, 2000, 0.01) == math.ceil(n)
    assert questions_needed(0, 0, 400, 0.01) > 4 * 381  # also where none differs


def test_so_many_do_in_four_cases_of_five() -> None:
    """Drawn at the planned number, nothing lost: the test passes about as often as planned."""
    rng, margin = np.random.default_rng(5), 0.02
    n = questions_needed(4, 4, 200, margin)
    draws = rng.multinomial(n, [0.02, 0.02, 0.96], size=3000)
    passed = np.mean([p_value(b, c, n, margin) < ALPHA for b, c, _ in draws.tolist()])
    assert passed == pytest.approx(POWER, abs=0.04)


def test_with_many_cells_more_are_needed_and_never_fewer_than_the_least() -> None:
    paired = Paired(3, 2, 1.0, 150)
    assert needed_for(paired, 1.0, 1) == questions_needed(3, 2, 150, 0.01)
    assert needed_for(paired, 1.0, 10) > needed_for(paired, 1.0, 1)
    assert needed_for(Paired(0, 0, 1.0, 3), 20.0, 1) == MIN_QUESTIONS


# --- many at once -----------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.7, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=24))
def test_holm_lies_between_none_and_bonferroni(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= a <= min(1.0, len(ps) * p) + 1e-12 for p, a in zip(ps, adjusted, strict=True))
    by_p = sorted(zip(ps, adjusted, strict=True))
    assert [a for _, a in by_p] == sorted(adjusted)


@pytest.mark.parametrize("counts", [(3, 1, 3), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_are_no_table_are_errors(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="questions, of which"):
        score_interval(*counts)
