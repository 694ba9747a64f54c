"""Matrix products by our CPU kernels, against float64: every shape, every scale, and what is fused with them."""

from __future__ import annotations

import os
import subprocess
import sys

import kernels_case
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels_case import ACTS, PRECISIONS, Floats, examples, normal, normed, packing, product_bound

from aim_local.errors import NativeError, UsageError
from aim_local.native import kernels, probe

named = kernels_case.named

# relative to the result, on normal numbers and long rows: sqrt(2) roundings of a packed element
TYPICAL = {"bf16": 2.8e-3, "int16": 8e-4, "int8": 1.6e-2}

rows, lengths, columns = st.integers(1, 200), st.integers(1, 300), st.integers(2, 150)
seeds = st.integers(0, 2**32 - 1)
precisions = st.sampled_from(PRECISIONS)


def relative(got: Floats, want: Floats) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def check(got: Floats, want: Floats, bound: Floats) -> float:
    """The largest share of the bound that was needed."""
    assert np.isfinite(got).all()
    share = float((np.abs(got - want) / np.maximum(bound, 1e-300)).max())
    assert share < 1, f"off by {np.abs(got - want).max():.3g}, {share:.2f} times what the packing explains"
    return share


def test_every_shape(named: str) -> None:
    """Every element is as near to the truth as its packed rows allow."""
    needed: list[float] = []

    @examples
    @given(rows, lengths, columns, seeds, precisions)
    def one(m: int, k: int, n: int, seed: int, precision: str) -> None:
        x, w = normal(seed, m, k), normal(seed + 1, n, k)
        got = probe.product(x, w, precision=precision)
        needed.append(check(got, x.astype(np.float64) @ w.T, product_bound(packing(named, precision), x, w)))

    one()
    print(f"{named}: at most {max(needed):.2f} of what the packing explains, {len(needed)} shapes")


@pytest.mark.parametrize(
    "shape", [(1, 1, 2), (1, 4304, 2), (33, 577, 31), (40, 1152, 72), (65, 1025, 129), (16, 2048, 16)]
)
def test_how_near(named: str, shape: tuple[int, int, int]) -> None:
    """The usual error, and that 16 bits are nearer than 8."""
    m, k, n = shape
    x, w = normal(0, m, k), normal(1, n, k)
    want = x.astype(np.float64) @ w.T
    found = {p: relative(probe.product(x, w, precision=p), want) for p in PRECISIONS}
    print(f"{named} {shape}: " + ", ".join(f"{packing(named, p)} {e:.2g}" for p, e in found.items()))
    for precision, error in found.items():
        few = 4.0 if m * n < 100 else 1.0  # a single number may happen to be near zero
        assert error < few * TYPICAL[packing(named, precision)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("of_x", "of_w"),
    [(1e-12, 1e-12), (1e12, 1e12), (1e-18, 1), (1, 1e-18), (1e20, 1e-16), (1e-28, 1e20), (1e-20, 1e-10)],
)
def test_every_scale(named: str, precision: str, of_x: float, of_w: float) -> None:
    x, w = np.float32(of_x) * normal(2, 20, 200), np.float32(of_w) * normal(3, 30, 200)
    got = probe.product(x, w, precision=precision).astype(np.float64) / (of_x * of_w)
    x, w = x / of_x, w / of_w
    share = check(got, x @ w.T, product_bound(packing(named, precision), x, w))
    print(f"{named} {precision} x {of_x:g} w {of_w:g}: {share:.2f} of the bound")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_different_scales(named: str, precision: str) -> None:
    """A large row or column takes nothing from its neighbours."""
    x, w = normal(4, 40, 130), normal(5, 50, 130)
    x *= np.float32(10.0) ** np.arange(-10, 10, 0.5, dtype=np.float32)[:, None]
    w *= np.float32(10.0) ** np.arange(-5, 5, 0.2, dtype=np.float32)[:, None]
    check(
        probe.product(x, w, precision=precision),
        x.astype(np.float64) @ w.T,
        product_bound(packing(named, precision), x, w),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zeros(named: str, precision: str) -> None:
    x, w = normal(6, 35, 70), normal(7, 21, 70)
    x[[0, 17, 34]], w[[3, 20]] = 0, 0
    got = probe.product(x, w, precision=precision)
    assert not got[[0, 17, 34]].any()
    assert not got[:, [3, 20]].any()
    assert got.any()
    assert not probe.product(np.zeros_like(x), w, precision=precision).any()


def test_one_large_column(named: str) -> None:
    """A column of k a hundred times the rest: rotated, it takes the range of its own 64 only."""
    x, w = normal(8, 64, 1152), normal(9, 96, 1152)
    planted = x.copy()
    planted[:, 500] *= 100
    for precision in PRECISIONS:
        found = [relative(probe.product(a, w, precision=precision), a.astype(np.float64) @ w.T) for a in (x, planted)]
        want = planted.astype(np.float64) @ w.T
        rest = want - np.outer(planted[:, 500], w[:, 500])
        of_rest = float(np.linalg.norm(probe.product(planted, w, precision=precision) - want) / np.linalg.norm(rest))
        print(f"{named} {packing(named, precision)}: plain {found[0]:.2g}, with the column {found[1]:.2g}")
        print(f"  and {of_rest:.2g} of what the other columns make")
        assert found[1] < 1.5 * TYPICAL[packing(named, precision)]
    naive = (
        np.round(planted * 127 / np.abs(planted).max(-1, keepdims=True)) * np.abs(planted).max(-1, keepdims=True) / 127
    )
    print(
        f"int8 without the rotation: of the rest {np.linalg.norm((naive - planted) @ w.T) / np.linalg.norm(rest):.2g}"
    )


@pytest.mark.parametrize("act", list(ACTS))
@pytest.mark.parametrize("precision", PRECISIONS)
def test_activations(named: str, precision: str, act: str) -> None:
    """From far below zero to far above, where exponentials would leave the range."""
    x, w = normal(10, 50, 60), normal(11, 47, 60)
    x *= np.linspace(0.01, 30, 50, dtype=np.float32)[:, None]
    want = ACTS[act](x.astype(np.float64) @ w.T)
    bound = 1.2 * product_bound(packing(named, precision), x, w) + 1e-6 + 1e-5 * np.abs(want)
    got = probe.product(x, w, precision=precision, act=act)
    print(f"{named} {precision} {act}: {check(got, want, bound):.2f} of the bound")


def test_everything_fused(named: str) -> None:
    """residual + gamma * act(norm(x) w^T + bias), with any part left out."""
    needed: list[float] = []

    @examples
    @given(
        rows,
        st.integers(4, 200),
        columns,
        seeds,
        precisions,
        st.sampled_from(list(ACTS)),
        st.tuples(*[st.booleans()] * 4),
    )
    def one(m: int, k: int, n: int, seed: int, precision: str, act: str, parts: tuple[bool, ...]) -> None:
        x, w = normal(seed, m, k), normal(seed + 1, n, k)
        vectors = (normal(seed + 2, k), normal(seed + 3, n), normal(seed + 4, n), normal(seed + 5, m, n))
        weight, bias, gamma, residual = (v if part else None for v, part in zip(vectors, parts, strict=True))
        got = probe.product(
            x, w, precision=precision, act=act, norm_weight=weight, bias=bias, gamma=gamma, residual=residual
        )
        entering = x if weight is None else normed(x) * weight
        bound = product_bound(packing(named, precision), entering, w)
        bound += 1e-5 * np.outer(np.linalg.norm(entering, axis=-1), np.linalg.norm(w, axis=-1))
        want = ACTS[act](entering.astype(np.float64) @ w.T + (0 if bias is None else bias))
        bound, by = 1.2 * bound + 1e-6 + 1e-5 * np.abs(want), 1 if gamma is None else gamma.astype(np.float64)
        added = 0 if residual is None else residual.astype(np.float64)
        needed.append(check(got, added + by * want, np.abs(by) * bound + 1e-6 + 1e-6 * np.abs(added)))

    one()
    print(f"{named}: at most {max(needed):.2f} of the bound, {len(needed)} cases")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_change_nothing(named: str, precision: str) -> None:
    """Bit for bit, whatever part each thread got; also where there is less to do than threads."""
    for m, k, n in ((1, 40, 3), (37, 333, 130), (200, 1152, 300)):
        x, w, parts = normal(12, m, k), normal(13, n, k), {"bias": normal(14, n), "residual": normal(15, m, n)}
        weight = normal(16, k)
        found = [
            probe.product(x, w, precision=precision, n_threads=t, act="gelu", norm_weight=weight, **parts).tobytes()
            for t in (1, 2, 3, 4)
        ]
        assert len(set(found)) == 1, (m, k, n)


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["x", "w"])
def test_what_is_not_finite_is_refused(where: str, wrong: float) -> None:
    arrays = {"x": normal(17, 3, 20), "w": normal(18, 4, 20)}
    arrays[where][2, 7] = wrong
    with pytest.raises(UsageError, match=rf"{where}\[47\] is -?(inf|nan); it has to be finite"):
        probe.product(**arrays, precision="exact")


def test_other_kernels_than_there_are() -> None:
    before = kernels.kernels()
    with pytest.raises(NativeError, match="this CPU has no kernels sse9"):
        kernels.use_kernels("sse9")
    assert kernels.kernels() == before


def in_a_process_with(name: str) -> subprocess.CompletedProcess[str]:
    say = "from aim_local.native.kernels import kernels; print(kernels())"
    env = {**os.environ, kernels.VARIABLE: name}
    return subprocess.run([sys.executable, "-c", say], env=env, capture_output=True, text=True)


def test_a_process_with_other_kernels() -> None:
    for name in ("", *kernels.NAMES):
        done, lacks = in_a_process_with(name), f"{kernels.VARIABLE} is {name}: this CPU has no kernels {name}; unset it"
        assert done.stdout.strip() == name if done.returncode == 0 else lacks in done.stderr
    assert f"{kernels.VARIABLE} is 'sse9'; allowed are amx, " in in_a_process_with("sse9").stderr
