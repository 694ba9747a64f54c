"""Our CPU kernels one product and one attention at a time: which of them, and what they shall come near to.

The truth is float64 numpy. The bounds follow from the packing alone (aim-kernels.h among the patches): how far a packed
row can be from the row, and Cauchy-Schwarz.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import thorough
from hypothesis import HealthCheck, settings

from aim_local.errors import NativeError
from aim_local.native import kernels, log

Floats = np.ndarray[Any, Any]
PRECISIONS = ("bf16", "int8")

log.clear()  # llama.cpp's log goes there, and not to the terminal

# the kernels are set once for all examples of a test; a busy machine is no failure
examples = settings(
    max_examples=thorough.examples(40),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(params=kernels.NAMES)
def named(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each of our kernels that this CPU has, in turn; the fastest again afterwards."""
    try:
        kernels.use_kernels(request.param)
    except NativeError:
        pytest.skip(f"this CPU has no kernels {request.param}")
    yield request.param
    kernels.use_kernels(None)


def wide_type(name: str) -> str:
    """What 16 bits are with these kernels."""
    return "bf16" if name == "amx" else "int16"


def packing(name: str, precision: str) -> str:
    """The packed type of a precision: "bf16", "int16" or "int8"; kernels without VNNI have no int8."""
    return "int8" if precision == "int8" and name not in ("avx512", "avx2") else wide_type(name)


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def rotated(x: Floats) -> Floats:
    """Blocks of 64 along the last axis times an orthonormal Hadamard matrix."""
    hadamard = np.ones((1, 1))
    for _ in range(6):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    k = x.shape[-1]
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, -k % 64)))
    return (padded.reshape(len(x), -1, 64) @ hadamard / 8).reshape(len(x), -1)


def distance(packed: str, x: Floats) -> Floats:
    """How far each row can be from what is packed of it, as a Euclidean length."""
    x = x.astype(np.float64)
    length, k = np.linalg.norm(x, axis=-1), x.shape[-1]
    if packed == "bf16":
        return length * 2.0**-7.99  # 8 bits, rounded to nearest
    if packed == "int16":
        step = np.maximum(np.abs(x).max(-1) / 32000, length / 45000)
        return 0.501 * step * math.sqrt(k)
    turned = rotated(x)
    return 0.501 * np.abs(turned).max(-1) / 127 * math.sqrt(turned.shape[-1])


def product_bound(packed: str, x: Floats, w: Floats) -> Floats:
    """How far x w^T of packed rows can be from that of the rows; [m, n]."""
    a, b = np.linalg.norm(x.astype(np.float64), axis=-1), np.linalg.norm(w.astype(np.float64), axis=-1)
    da, db = distance(packed, x), distance(packed, w)
    rounding = 3e-7 * math.sqrt(x.shape[-1]) + 1e-6  # of sums in float32
    return np.outer(da, b) + np.outer(a, db) + np.outer(da, db) + rounding * np.outer(a, b)


def _erf(x: Floats) -> Floats:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(x / 2))


ACTS: dict[str, Callable[[Floats], Floats]] = {
    "none": lambda x: x,
    "gelu": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: x / 2 * (1 + _erf(x / math.sqrt(2))),
    "gelu_quick": lambda x: x * _sigmoid(1.702 * x),
    "silu": lambda x: x * _sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
}


def normed(x: Floats) -> Floats:
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def attended(q: Floats, k: Floats, v: Floats, scale: float, mask: Floats | None) -> Floats:
    """softmax(scale q k^T + mask) v; zeros where a query may see nothing. Shapes as in kernels.attention."""
    group = len(q) // len(k)
    out = []
    for head, queries in enumerate(q.astype(np.float64)):
        scores = scale * queries @ k[head // group].astype(np.float64).T
        scores = scores if mask is None else scores + mask
        highest = scores.max(-1, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
        total = weights.sum(-1, keepdims=True)
        out.append(weights / np.where(total > 0, total, 1) @ v[head // group].astype(np.float64))
    return np.stack(out, axis=1)
