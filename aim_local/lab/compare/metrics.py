"""The statistics of a comparison: intervals, a paired test, divergence of next-token distributions. Numpy only.

Knows numbers. Which answers and logits they come from is cell.py's and summary.py's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from .records import Divergence, Paired, Rate

Floats = npt.NDArray[np.float64]
_Z = NormalDist().inv_cdf(0.975)  # 95 %, two-sided


def wilson(k: int, n: int) -> Rate:
    """k of n with the 95 % Wilson score interval (Wilson 1927), without continuity correction.

    Raises ValueError for n < 1 or k outside 0..n: a share of nothing has no interval.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"k of n needs 0 <= k <= n and n >= 1, got k={k}, n={n}")
    share, z2 = k / n, _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # the ends are exactly 0 and 1 there; rounding would leave 1e-17
    return Rate(k, n, centre - half if k else 0.0, centre + half if k < n else 1.0)


def mcnemar(reference: Sequence[bool], here: Sequence[bool]) -> Paired:
    """McNemar's test in its exact form: two-sided binomial test of the discordant pairs against one half.

    reference, here: whether each item was right, in the same order. p is 1.0 where no pair differs.
    Raises ValueError for different lengths.
    """
    pairs = list(zip(reference, here, strict=True))
    only_reference = sum(1 for r, h in pairs if r and not h)
    only_here = sum(1 for r, h in pairs if h and not r)
    n, least = only_reference + only_here, min(only_reference, only_here)
    tail = sum(math.comb(n, i) for i in range(least + 1))
    # whole numbers up to one division: exact
    return Paired(only_reference, only_here, min(1.0, 2 * tail / 2**n), len(pairs))


def log_softmax(logits: npt.ArrayLike) -> Floats:
    """Log probabilities over the last axis, [..., n_vocab] float64. A logit of -inf is a token of probability 0.

    Raises ValueError for NaN, +inf, and for a row that is -inf throughout.
    """
    x = np.asarray(logits, np.float64)
    top = x.max(axis=-1, keepdims=True)  # NaN where the row has one
    if not np.isfinite(top).all():
        raise ValueError("logits hold NaN or infinity, or nothing but -infinity: no distribution")
    shifted: Floats = x - top
    with np.errstate(under="ignore"):
        shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl_divergence(reference_logits: npt.ArrayLike, logits: npt.ArrayLike) -> Floats:
    """KL(reference || here) per row in nats, float64 [n], from logits [n, n_vocab] of both.

    A token of probability 0 in the reference adds nothing; one of probability 0 here alone makes the divergence
    infinite. The divergence is never negative; float64 sums can come out around -1e-16, and those are set to 0.
    Raises ValueError for different shapes and for logits that are no distribution.
    """
    reference, here = _pair(reference_logits, logits)
    # row by row: float64 copies of all rows of a large vocabulary would fill the memory
    return np.array([_kl_row(r, h) for r, h in zip(reference, here, strict=True)], np.float64)


def _kl_row(reference: npt.NDArray[np.floating], here: npt.NDArray[np.floating]) -> float:
    log_p, log_q = log_softmax(reference), log_softmax(here)
    with np.errstate(under="ignore"):
        p = np.exp(log_p)
    seen = p > 0  # elsewhere p log p is 0 in the limit, but 0 * inf on a computer
    return max(0.0, float(np.sum(p[seen] * (log_p[seen] - log_q[seen]))))


def top1_equal(reference_logits: npt.ArrayLike, logits: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether the likeliest token is the same, bool [n], from logits [n, n_vocab]; of equal ones the first counts."""
    reference, here = _pair(reference_logits, logits)
    if np.isnan(reference).any() or np.isnan(here).any():
        raise ValueError("logits hold NaN: no likeliest token")
    return np.asarray(reference.argmax(axis=-1) == here.argmax(axis=-1))


def _pair(
    reference_logits: npt.ArrayLike, logits: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    reference, here = np.asarray(reference_logits), np.asarray(logits)
    if reference.ndim != 2 or reference.shape != here.shape or reference.shape[1] == 0:
        raise ValueError(f"expected two [n, n_vocab] of one shape, got {list(reference.shape)} and {list(here.shape)}")
    return reference, here


def divergence(kld_values: Sequence[float], top1_values: Sequence[bool]) -> Divergence:
    """Mean, median and 99th percentile (linear between neighbours) of KL divergences, and the top-1 agreement.

    Raises ValueError for none, for different lengths, and for NaN.
    """
    if not len(kld_values) or len(kld_values) != len(top1_values):
        raise ValueError(f"expected as many divergences as agreements, got {len(kld_values)} and {len(top1_values)}")
    values = np.asarray(kld_values, np.float64)
    if np.isnan(values).any():
        raise ValueError("a divergence is NaN")
    agreement = wilson(sum(1 for same in top1_values if same), len(top1_values))
    return Divergence(float(values.mean()), float(np.median(values)), _p99(values), agreement, len(values))


def _p99(values: Floats) -> float:
    if math.isinf(np.percentile(values, 99, method="higher")):
        return math.inf  # numpy's interpolation towards an infinite neighbour can come out as NaN
    return float(np.percentile(values, 99))
