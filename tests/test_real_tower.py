"""benchmarks/real_tower.py measures what it says: the conversion, the planted outliers, the figures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
from thorough import few

from aim_local.errors import AimError, UsageError
from aim_local.lab.bench.shapes import write_text_gguf


def benchmark(name: str) -> Any:
    """A script of benchmarks/, which is in no package."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dinov2, towers, real_tower = benchmark("dinov2"), benchmark("towers"), benchmark("real_tower")


def random_backbone(n_layer: int) -> Any:
    """Of the real sizes, with weights that no layer drowns in the others."""
    rng = np.random.default_rng(3)
    d, ff = dinov2.N_EMBD, dinov2.N_FF

    def draw(*shape: int, scale: float = 0.05) -> Any:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def layer() -> Any:
        weights = {f"{ln}.weight": 1 + draw(d) for ln in ("ln1", "ln2")}
        weights |= {f"{ln}.bias": draw(d) for ln in ("ln1", "ln2")}
        for name, (rows, columns) in {
            **{f"attn_{part}": (d, d) for part in ("q", "k", "v", "out")},
            "ffn_up": (ff, d),
            "ffn_down": (d, ff),
        }.items():
            weights |= {f"{name}.weight": draw(rows, columns), f"{name}.bias": draw(rows)}
        return dinov2.Layer(weights | {"scale1": draw(d, scale=0.7), "scale2": draw(d, scale=0.7)})

    kernel = draw(d, 3, dinov2.PATCH, dinov2.PATCH)
    layers = tuple(layer() for _ in range(n_layer))
    positions = draw(1 + (dinov2.SIDE // dinov2.PATCH) ** 2, d, scale=0.5)
    return dinov2.Backbone(kernel, draw(d), draw(d, scale=0.5), positions, layers, 1 + draw(d), draw(d))


@pytest.fixture(scope="module")
def tile() -> Any:
    return np.random.default_rng(0).integers(0, 256, (dinov2.SIDE, dinov2.SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> Any:
    return random_backbone(dinov2.N_LAYER)


@pytest.fixture(scope="module")
def files(backbone: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """mmproj and text tower."""
    folder = tmp_path_factory.mktemp("tower")
    dinov2.write_mmproj(backbone, folder / "mmproj.gguf")
    write_text_gguf(dinov2.text_shape(), folder / "text.gguf", "f32")
    return folder / "mmproj.gguf", folder / "text.gguf"


@pytest.mark.thorough
def test_the_conversion_is_the_same_network(backbone: Any, files: tuple[Path, Path], tile: Any) -> None:
    ours = real_tower.encode(*files, [tile], towers.reference_config())
    theirs = dinov2.reference_rows(backbone, tile, "tanh")
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f"largest difference: {error:.1e} of the largest")
    assert error < 1e-5
    assert "conversion: 256 patch rows" in real_tower.check_conversion(backbone, *files, [tile])


def test_a_wrong_conversion_is_told(backbone: Any, files: tuple[Path, Path], tile: Any) -> None:
    """Without layer scale it is another network."""
    ones = np.ones(dinov2.N_EMBD, np.float32)
    layers = tuple(dinov2.Layer({**layer.weights, "scale1": ones}) for layer in backbone.layers)
    other = dinov2.Backbone(
        backbone.patch_kernel, backbone.patch_bias, backbone.class_token, backbone.positions, layers,
        backbone.norm_weight, backbone.norm_bias,
    )  # fmt: skip
    with pytest.raises(AimError, match="conversion is wrong"):
        real_tower.check_conversion(other, *files, [tile])


@pytest.mark.parametrize("plant", few(["planted_weights", "planted_inputs"], 1))
def test_planted_outliers_change_nothing_in_f32(
    plant: str, files: tuple[Path, Path], tile: Any, tmp_path: Path
) -> None:
    mmproj, text = files
    towers.copy_mmproj(mmproj, tmp_path / "planted.gguf", "f32", getattr(real_tower, plant))
    assert (tmp_path / "planted.gguf").read_bytes() != mmproj.read_bytes()
    plain = real_tower.encode(mmproj, text, [tile], towers.reference_config())
    planted = real_tower.encode(tmp_path / "planted.gguf", text, [tile], towers.reference_config())
    error = np.abs(planted - plain).max() / np.abs(plain).max()
    print(f"{plant}: largest difference {error:.1e} of the largest")
    assert error < 1e-5


def test_planted_columns_are_outliers() -> None:
    weights = {"v.blk.0.ln1.weight": np.ones(8, np.float32), "v.blk.0.ln1.bias": np.zeros(8, np.float32)}
    weights |= {"v.blk.0.ln2.weight": np.ones(8, np.float32), "v.blk.0.ln2.bias": np.zeros(8, np.float32)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up"):
        weights |= {
            f"v.blk.0.{name}.weight": np.ones((8, 8), np.float32),
            f"v.blk.0.{name}.bias": np.ones(8, np.float32),
        }
    found = real_tower.planted_inputs(weights)
    assert sorted(found["v.blk.0.ln1.weight"]) == [1] * 4 + [100] * 4
    assert np.allclose(np.sort(found["v.blk.0.attn_q.weight"][0]), [0.01] * 4 + [1] * 4)
    assert (weights["v.blk.0.attn_q.weight"] == 1).all(), "what was given is left as it was"


def test_figures_by_hand() -> None:
    exact = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)
    found = real_tower.cost("t", "f16", "int8", np.array([[3.0, 4.5], [1.0, 0.0]], np.float32), exact)
    assert found.error == pytest.approx(0.1)
    assert found.worst == pytest.approx((9 + 18) / 5 / np.hypot(3, 4.5))
    assert found.cosine == pytest.approx((1 + found.worst) / 2)
    assert "| t | f16 | int8 |" in real_tower.table([found])
    with pytest.raises(AimError, match="not finite"):
        real_tower.cost("t", "f16", "int8", np.full((2, 2), np.nan, np.float32), exact)


def test_an_unknown_precision_is_refused() -> None:
    assert towers.precisions()[0] == "exact"
    with pytest.raises(UsageError, match="nonsense"):
        towers.load_config("nonsense")
