"""Whether a loss is smaller than a margin: the score test of two shares of the same questions, and how many it needs.

Knows counts and shares. Which answers they come from, and what follows from them, is verdict.py's business.

Throughout: `lost` and `gained` are questions (or shares of them) that only the reference, and only the other, has
right; a difference is gained - lost, so a loss is negative; margins and differences are shares, 0.01 for one point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from .records import Paired

ALPHA = 0.025  # one-sided: the lower end of a two-sided 95 % interval
POWER = 0.8
MIN_QUESTIONS = 30  # below it the test's normal approximation is not to be trusted with "keeps its accuracy"
_NORMAL = NormalDist()
_STEPS = 60  # halvings of an interval no wider than 2: to the last bit of a float


def score(lost: int, gained: int, n: int, difference: float) -> float:
    """Tango's Z of the hypothesis that the true difference is `difference`, in (-1, 1); falls as that rises.

    Tango (1998), Statistics in Medicine 17, 891, equations 24 to 26; with difference 0 it is McNemar's
    (gained - lost) / sqrt(gained + lost). Raises ValueError for counts that are no table of n questions.
    """
    _check(lost, gained, n)
    distance = (gained - lost) / n - difference
    if distance == 0:
        return 0.0
    variance = _null_variance(lost / n, gained / n, difference)
    return distance / math.sqrt(variance / n) if variance > 0 else math.copysign(math.inf, distance)


def _null_variance(lost: float, gained: float, difference: float) -> float:
    """Variance of one question's difference where the true one is `difference`; the share lost as likely as can be."""
    b = (2 - gained + lost) * difference - (gained + lost)
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(b * b - 8 * c, 0.0)) - b) / 4  # lost, by maximum likelihood
    return 2 * share + difference * (1 - difference)


def score_interval(lost: int, gained: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """The differences that the score test does not reject at `alpha` on either side: a 1 - 2 alpha interval."""
    _check(lost, gained, n)
    z, seen = _NORMAL.inv_cdf(1 - alpha), (gained - lost) / n
    low = _edge(-1.0, seen, lambda x: score(lost, gained, n, x) > z) if seen > -1 else -1.0
    high = _edge(seen, 1.0, lambda x: score(lost, gained, n, x) >= -z) if seen < 1 else 1.0
    return low, high


def _edge(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Where a condition that holds to the left ends."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def p_value(lost: int, gained: int, n: int, margin: float) -> float:
    """One-sided p of the hypothesis that the loss is the margin or more: small where it is less."""
    return 1 - _NORMAL.cdf(score(lost, gained, n, -margin))


def questions_needed(lost: int, gained: int, n: int, margin: float, alpha: float = ALPHA) -> int:
    """Questions with which the test finds, with a probability of POWER, that the loss is less than the margin.

    Nam (1997), Biometrics 53, 1422: ((z_alpha sqrt(V0) + z_power sqrt(V1)) / distance)^2, with V0 and V1 the variance
    of a question's difference at the margin and as assumed, `distance` between the two. Assumed is that as large a
    share as here is answered right by one alone, and that no accuracy is lost. Where that many were asked already and
    did not do, half of the margin is taken for lost, then three quarters, and so on: more than n, always, and finite.
    Where none differs it is what n questions without any difference need, z_alpha^2 (1 - margin) / margin.
    """
    _check(lost, gained, n)
    distance = margin
    while (needed := _planned((lost + gained) / n, margin, distance, alpha)) <= n:
        distance /= 2
    return needed


def needed_for(paired: Paired, margin: float, n_tested: int) -> int:
    """questions_needed for a margin in points, enough for the first step of Holm's procedure with n_tested cells."""
    lost, gained, n = paired.only_reference, paired.only_here, paired.n
    return max(MIN_QUESTIONS, questions_needed(lost, gained, n, margin / 100, ALPHA / max(1, n_tested)))


def _planned(discordant: float, margin: float, distance: float, alpha: float) -> int:
    assumed = distance - margin  # the true difference: 0 or less
    discordant = max(discordant, -assumed)
    at_margin = _null_variance((discordant - assumed) / 2, (discordant + assumed) / 2, -margin)
    as_assumed = discordant - assumed * assumed
    z, z_power = _NORMAL.inv_cdf(1 - alpha), _NORMAL.inv_cdf(POWER)
    return math.floor(((z * math.sqrt(at_margin) + z_power * math.sqrt(as_assumed)) / distance) ** 2) + 1


def holm(p_values: Sequence[float]) -> list[float]:
    """p adjusted for their number (Holm 1979): each at or below alpha keeps the chance of any error at alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _check(lost: int, gained: int, n: int) -> None:
    if n < 1 or min(lost, gained) < 0 or lost + gained > n:
        raise ValueError(f"{n} questions, of which {lost} are lost and {gained} gained")
