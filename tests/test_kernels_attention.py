"""Attention by our CPU kernels, against float64: heads that share keys, masks, types of the KV cache, every size."""

from __future__ import annotations

import gguf
import kernels_case
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels_case import Floats, attended, examples, normal, wide_type

from aim_local.native import probe

named = kernels_case.named

# of the largest value: rounding of q, k and the weights, with scores of a few units
ALLOWED = {"bf16": 2e-2, "int16": 2e-3}
MASKS = ("none", "causal", "sliding", "some see nothing", "biased")


def rounded(x: Floats, kv_type: str) -> Floats:
    """What a KV cache of that type holds, by another implementation of its format."""
    if kv_type == "f16":
        return x.astype(np.float16).astype(np.float32)
    kind = gguf.GGMLQuantizationType[kv_type.upper()]
    return gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind)


def mask_of(kind: str, n_q: int, n_kv: int, seed: int) -> Floats | None:
    """Queries are the last of the keys' positions, as in a prefill after others."""
    if kind == "none":
        return None
    behind = np.arange(n_q)[:, None] + n_kv - n_q - np.arange(n_kv)[None, :]  # positions that a key is before a query
    seen = behind >= 0
    if kind == "sliding":
        seen &= behind < 20
    if kind == "some see nothing":
        seen = np.random.default_rng(seed).random((n_q, n_kv)) < 0.5
        seen[::3] = False
    bias = -0.125 * np.abs(behind) if kind == "biased" else 0.0
    return np.where(seen, bias, -np.inf).astype(np.float16).astype(np.float32)  # as the graph rounds it


def inputs(seed: int, n_head: int, n_head_kv: int, n_q: int, n_kv: int, d: int) -> tuple[Floats, Floats, Floats]:
    return normal(seed, n_head, n_q, d), normal(seed + 1, n_head_kv, n_kv, d), normal(seed + 2, n_head_kv, n_kv, d)


def worst(got: Floats, want: Floats, v: Floats) -> float:
    assert np.isfinite(got).all()
    return float(np.abs(got - want).max() / np.abs(v).max())


def test_every_size(named: str) -> None:
    errors: dict[str, float] = {}

    @examples
    @given(
        st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
        st.integers(16, 120),
        st.integers(1, 200),
        st.integers(1, 130),
        st.sampled_from(MASKS),
        st.integers(0, 2**32 - 1),
    )
    def one(heads: tuple[int, int], n_q: int, n_kv: int, d: int, masking: str, seed: int) -> None:
        q, k, v = inputs(seed, *heads, n_q, n_kv, d)
        mask, scale = mask_of(masking, n_q, n_kv, seed), d**-0.5
        got = probe.attention(q, k, v, precision="bf16", mask=mask, scale=scale)
        want = attended(q, rounded(k, "f16"), rounded(v, "f16"), scale, mask)
        errors[masking] = max(errors.get(masking, 0.0), worst(got, want, v))
        assert errors[masking] < ALLOWED[wide_type(named)]

    one()
    print(f"{named}, of the largest value: " + ", ".join(f"{m} {e:.2g}" for m, e in errors.items()))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("d", [32, 64, 96, 128])
def test_types_of_the_cache(named: str, kv_type: str, d: int) -> None:
    """As near to what the cache holds as with half floats."""
    q, k, v = inputs(3, 4, 2, 45, 77, d)
    mask = mask_of("causal", 45, 77, 0)
    got = probe.attention(q, k, v, precision="bf16", mask=mask, scale=d**-0.5, kv_type=kv_type)
    error = worst(got, attended(q, rounded(k, kv_type), rounded(v, kv_type), d**-0.5, mask), v)
    print(f"{named} {kv_type} d {d}: {error:.2g}")
    assert error < ALLOWED[wide_type(named)]


def test_queries_that_see_nothing_get_zeros(named: str) -> None:
    """As with llama.cpp's kernels."""
    q, k, v = inputs(4, 2, 2, 40, 50, 48)
    mask = np.zeros((40, 50), np.float32)
    mask[[0, 31, 39]] = -np.inf
    mask[:, 44:] = -np.inf
    for precision in ("exact", "bf16"):
        got = probe.attention(q, k, v, precision=precision, mask=mask, scale=0.2)
        assert not got[[0, 31, 39]].any()
        assert (np.abs(got).max((1, 2)) > 0).sum() == 37


def test_large_scores(named: str) -> None:
    """One key takes all: no exponential leaves the range."""
    q, k, v = inputs(5, 1, 1, 20, 33, 64)
    k[0] = np.eye(33, 64, dtype=np.float32)
    q[0] = 0
    q[0, np.arange(20), np.arange(20) + 7] = 3000
    got = probe.attention(q, k, v, precision="bf16", scale=1.0)
    error = worst(got[:, 0], rounded(v, "f16")[0, 7:27], v)
    print(f"{named}: {error:.2g}")
    assert error < ALLOWED[wide_type(named)]


def test_few_queries_are_left_to_ggml(named: str) -> None:
    """Below 16 packing the keys would cost more than it saves: bit for bit what exact gives, and from 16 on not."""
    for n_q in (1, 2, 15, 16):
        q, k, v = inputs(6, 4, 2, n_q, 60, 64)
        ours, ggml = (probe.attention(q, k, v, precision=p, scale=0.125).tobytes() for p in ("bf16", "exact"))
        assert (ours == ggml) == (n_q < 16), n_q


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_threads_change_nothing(named: str, kv_type: str) -> None:
    q, k, v = inputs(7, 6, 2, 83, 150, 64)
    mask = mask_of("causal", 83, 150, 0)
    found = {
        probe.attention(q, k, v, precision="bf16", mask=mask, scale=0.1, kv_type=kv_type, n_threads=t).tobytes()
        for t in (1, 2, 3, 4)
    }
    assert len(found) == 1


@pytest.mark.parametrize("where", ["q", "k", "v"])
@pytest.mark.parametrize("n_kv", [31, 32, 40, 64])
def test_a_nan_stays(named: str, where: str, n_kv: int) -> None:
    """A broken value is seen in all that it touches, and in nothing else."""
    arrays = {"q": normal(20, 2, 40, 64), "k": normal(21, 1, n_kv, 64), "v": normal(22, 1, n_kv, 64)}
    arrays[where][0, 7, 5] = np.nan
    got = np.isnan(probe.attention(**arrays, precision="bf16", scale=0.125))  # [n_q, n_head, d]
    if where == "q":
        assert got[7, 0].all()
        assert got.sum() == 64
    elif where == "k":
        assert got.all()
    else:
        assert got[:, :, 5].all()
