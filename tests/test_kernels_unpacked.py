"""A language model's weights, wherever ggml put them, unpacked for our kernels: against float64 products."""

from __future__ import annotations

import itertools
from typing import Any

import gguf
import kernels_case
import numpy as np
import pytest
import thorough
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_case import Floats, distance, examples, normal, wide_type
from numpy.typing import NDArray

from aim_local.errors import ModelError
from aim_local.native import kernels, probe

named = kernels_case.named

BUFFERS = {"CPU": (Kind.Q4_0, Kind.Q8_0, Kind.Q5_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.BF16),
           "CPU_REPACK": (Kind.Q4_0, Kind.Q4_K), "AMX": (Kind.Q4_0, Kind.Q8_0, Kind.Q4_K, Kind.Q6_K)}  # fmt: skip
CASES = [(buffer, kind) for buffer, kinds in BUFFERS.items() for kind in kinds]
FINE = 2047  # steps of int16 up to the largest of 32


def drawn(kind: Kind, n: int, k: int, seed: int) -> NDArray[np.uint8]:
    """Rows as a file has them: any bytes, with scales that are no larger than weights have."""
    block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    if kind == Kind.BF16:
        return np.asarray(gguf.quants.quantize(normal(seed, n, k), kind))
    blocks = np.random.default_rng(seed).integers(0, 256, (n, k // block, n_bytes), np.uint8)
    for at in {Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (n_bytes - 2,)}.get(kind, (0,)):
        scale = np.random.default_rng(seed + at).uniform(0.001, 0.02, (n, k // block, 1)).astype(np.float16)
        blocks[:, :, at : at + 2] = scale.view(np.uint8)
    return blocks.reshape(n, -1)


def of_weight(packed: str, w: Floats) -> Floats:
    """How far each unpacked row can be from the row."""
    if packed == "bf16":
        return distance(packed, w)
    groups = np.abs(w.reshape(len(w), -1, 32)).max(-1) / FINE
    return np.sqrt((1.01 * groups**2 * 32).sum(-1))


def bound(packed: str, x: Floats, w: Floats) -> Floats:
    a, b = np.linalg.norm(x.astype(np.float64), axis=-1), np.linalg.norm(w.astype(np.float64), axis=-1)
    da, db = distance(packed, x), of_weight(packed, w.astype(np.float64))
    return np.outer(da, b) + np.outer(a, db) + np.outer(da, db) + 1e-5 * np.outer(a, b)


def computed(named: str, x: Floats, rows: Any, case: tuple[str, Kind], **options: Any) -> Floats:
    buffer, kind = case
    if buffer == "AMX" and named != "amx":
        pytest.skip("only the kernels with AMX read its buffer")
    if buffer == "CPU_REPACK" and named == "amx":
        pytest.skip("with AMX nothing is repacked")
    try:
        return probe.stored_product(x, rows, int(kind), buffer, **options)
    except ModelError as e:
        pytest.skip(str(e))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1].name}")
def test_every_shape(named: str, case: tuple[str, Kind]) -> None:
    block = max(32, gguf.GGML_QUANT_SIZES[case[1]][0])
    needed, far = [0.0], [0.0]

    @settings(examples, max_examples=thorough.examples(12))
    @given(st.integers(64, 200), st.integers(1, 1300 // block), st.integers(1, 20), st.integers(0, 2**31))
    def one(m: int, n_blocks: int, n16: int, seed: int) -> None:
        n16 += n16 % 2 if case[0] == "AMX" else 0
        x, rows = normal(seed, m, block * n_blocks), drawn(case[1], 16 * n16, block * n_blocks, seed)
        w = gguf.quants.dequantize(rows, case[1])
        want = x.astype(np.float64) @ w.T.astype(np.float64)
        got = computed(named, x, rows, case)
        assert np.isfinite(got).all()
        needed.append(float((np.abs(got - want) / bound(wide_type(named), x, w)).max()))
        far.append(float(np.linalg.norm(got - want) / np.linalg.norm(want)))

    one()
    print(
        f"{named} {case[0]} {case[1].name}: {max(needed):.2f} of what packing explains; relative error {max(far):.1e}"
    )
    assert max(needed) < 1
    assert max(far) < (4e-3 if named == "amx" else 1.5e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1].name}")
def test_many_rows_any_threads(named: str, case: tuple[str, Kind]) -> None:
    """More rows than one unpacked part is used for; the same bits by any number of threads; ggml's own are others."""
    x, rows = normal(1, 1100, 512), drawn(case[1], 272 if case[0] != "AMX" else 288, 512, 2)
    got = [computed(named, x, rows, case, n_threads=n) for n in (1, 2, 5)]
    want = x.astype(np.float64) @ gguf.quants.dequantize(rows, case[1]).T.astype(np.float64)
    assert np.linalg.norm(got[0] - want) < 4e-3 * np.linalg.norm(want)
    assert got[0].tobytes() == got[1].tobytes() == got[2].tobytes()
    exact = computed(named, x, rows, case, precision="exact")
    assert exact.tobytes() != got[0].tobytes()
    few = [computed(named, x[:63], rows, case, precision=p).tobytes() for p in ("exact", "bf16")]
    assert few[0] == few[1], "fewer rows than unpacking pays for are ggml's"


def test_what_is_not_unpacked(named: str) -> None:
    """Half floats are nearer by ggml's kernels; columns that are no multiple of 16 stay there, too."""
    for kind, n in ((Kind.F16, 32), (Kind.Q8_0, 24), (Kind.Q4_0, 40)):
        rows = gguf.quants.quantize(normal(3, n, 64), kind).view(np.uint8)
        found = [
            probe.stored_product(normal(4, 70, 64), rows, int(kind), "CPU", precision=p) for p in ("exact", "bf16")
        ]
        assert found[0].tobytes() == found[1].tobytes(), (kind, n)


def test_large_and_zero_weights(named: str) -> None:
    """Zero rows give zeros; a block of large weights takes nothing from the others."""
    for case in itertools.chain(((b, Kind.Q4_0) for b in BUFFERS), [("CPU", Kind.Q8_0), ("CPU", Kind.Q6_K)]):
        w = normal(5, 32, 512)
        w[3], w[7, :256] = 0, w[7, :256] * 1e4
        rows = drawn(case[1], 32, 512, 6) if case[1] == Kind.Q6_K else gguf.quants.quantize(w, case[1])
        w, x = gguf.quants.dequantize(rows, case[1]), normal(7, 64, 512)
        got = computed_or_none(named, x, rows, case)
        if got is not None:
            assert not got[:, ~w.any(1)].any()
            assert (np.abs(got - x.astype(np.float64) @ w.T.astype(np.float64)) <= bound(wide_type(named), x, w)).all()


def computed_or_none(named: str, x: Floats, rows: Any, case: tuple[str, Kind]) -> Floats | None:
    try:
        return computed(named, x, rows, case)
    except pytest.skip.Exception:
        return None


def test_errors() -> None:
    x, rows = normal(8, 64, 32), np.zeros((16, 18), np.uint8)
    with pytest.raises(ModelError, match="this CPU backend has no buffer type FANCY"):
        probe.stored_product(x, rows, int(Kind.Q4_0), "FANCY")
    assert kernels.kernels() in ("", *kernels.NAMES)
