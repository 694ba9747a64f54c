"""Qwen2.5-VL's windows as windows: the rows of llama.cpp's own graph, which computes all pairs and masks them.

Without kernels of ours both are float32, so that little but the activation differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import thorough
from hypothesis import HealthCheck, given, settings, strategies
from qwen_case import converted

from aim_local import LoadConfig
from aim_local.engine.model import Model, open_model
from aim_local.models.parts import PartTower
from aim_local.native import kernels

UNIT = 28  # pixels of a visual token's side; a window is 4 x 4 of them
FAR = 2e-3  # of the largest: llama.cpp's gelu reads a table of half floats, ours is exact


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PartTower]]:
    """Both graphs of one file: "exact" is llama.cpp's."""
    made = converted("qwen2_5_vl", tmp_path_factory)
    with ExitStack() as stack:
        stack.callback(kernels.use_kernels, None)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        kernels.use_kernels("")
        patch.setattr(kernels, "resolved", lambda precision: precision)
        found: dict[str, PartTower] = {}
        for precision in ("exact", "bf16"):
            model = opened(made / "model.gguf", made / "mmproj.gguf", precision)
            stack.callback(model.close)
            assert isinstance(model.tower, PartTower)
            found[precision] = model.tower
        yield found


def opened(model: Path, mmproj: Path, precision: str) -> Model:
    how = LoadConfig(vision_precision=precision, flash_attn=False, cache_media=False, n_threads=1)
    return open_model(model, mmproj, how)


def apart(towers: dict[str, PartTower], tile: np.ndarray) -> float:
    theirs, ours = (towers[name].encoder.encode(tile) for name in ("exact", "bf16"))
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


examples = settings(
    max_examples=thorough.examples(12),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@examples
@given(rows=strategies.integers(1, 11), columns=strategies.integers(1, 11), n_frames=strategies.integers(1, 2))
def test_windows_of_any_grid(towers: dict[str, PartTower], rows: int, columns: int, n_frames: int) -> None:
    """Whole windows, those that the right and the lower edge cut, and the corner."""
    rng = np.random.default_rng([rows, columns])
    tile = rng.integers(0, 256, (n_frames, rows * UNIT, columns * UNIT, 3), np.uint8)
    found = apart(towers, tile if n_frames > 1 else tile[0])
    print(f"{rows} x {columns} tokens, {n_frames} frames: {found:.1e}")
    assert found < FAR


def test_other_windows_would_show(towers: dict[str, PartTower]) -> None:
    """The same pixels one token further lie in other windows."""
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (8 * UNIT, 8 * UNIT, 3), np.uint8)
    moved = np.roll(tile, UNIT, axis=1)
    theirs = towers["exact"].encoder.encode(tile)
    other = towers["bf16"].encoder.encode(moved)
    assert np.abs(theirs - other).max() / np.abs(theirs).max() > 0.05
