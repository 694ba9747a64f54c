"""Pictures of any resolution as tiles and tokens, natively against transformers' own packing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_merging import drawn_rows
from thorough import examples

from aim_local.errors import UsageError
from aim_local.native.visual import AnyresPlan, anyres_pack, merge_rows

GRID_6X6 = [(h, w) for h in range(1, 7) for w in range(1, 7)]


class HfPacker:
    """transformers' own pack_image_features on a config, without a model."""

    def __init__(self, side: int, patches: int, pinpoints: list[tuple[int, int]]) -> None:
        from types import SimpleNamespace

        from transformers.models.llava_onevision import modeling_llava_onevision as hf

        vision = SimpleNamespace(image_size=side, patch_size=side // patches)
        self.config = SimpleNamespace(vision_config=vision, image_grid_pinpoints=[list(p) for p in pinpoints])
        self.hf = hf

    def n_tiles(self, height: int, width: int) -> int:
        pinpoints, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        return int(self.hf.image_size_to_num_patches((height, width), pinpoints, side))

    def pack(self, tiles: np.ndarray, height: int, width: int, newline: np.ndarray, max_tiles: int) -> np.ndarray:
        import torch

        rows, _ = self.hf.LlavaOnevisionModel.pack_image_features(
            self,
            [torch.from_numpy(tiles)],
            torch.tensor([[height, width]]),
            image_newline=torch.from_numpy(newline),
            vision_aspect_ratio=f"anyres_max_{max_tiles}",
        )
        return np.asarray(rows[0].numpy())


def check_pack(height: int, width: int, patches: int, max_tiles: int, cells: list[tuple[int, int]]) -> float:
    """Our rows against transformers'; returns the largest difference."""
    side = 14 * patches + 6 if patches == 27 else 4 * patches
    pinpoints = [(h * side, w * side) for h, w in cells]
    hf = HfPacker(side, patches, pinpoints)
    plan = AnyresPlan.of(height, width, side, patches, pinpoints, max_tiles)
    assert plan.n_tiles == hf.n_tiles(height, width)
    rng = np.random.default_rng(height * 7919 + width)
    tiles = rng.standard_normal((plan.n_tiles, patches * patches, 2)).astype(np.float32)
    newline = np.array([100, 200], np.float32)
    got = anyres_pack(plan, tiles, newline)
    if min(plan.grid_h, plan.grid_w) == 1 and plan.grid_h * plan.grid_w < plan.crop_h * plan.crop_w:
        return 0.0  # a strip that may shrink to nothing: transformers fails there, we keep one patch
    want = hf.pack(tiles, height, width, newline, max_tiles)
    assert got.rows.shape == want.shape == (plan.n_tokens, 2)
    assert plan.count() == plan.n_tokens
    assert ((got.slots == -1) == (got.rows[:, 0] == 100)).all()
    return float(np.abs(got.rows - want).max(initial=0))


@settings(deadline=None, max_examples=examples(300))
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), patches=st.integers(1, 9), max_tiles=st.integers(1, 9))
def test_anyres_equals_transformers(height: int, width: int, patches: int, max_tiles: int) -> None:
    pytest.importorskip("transformers")
    assert check_pack(height, width, patches, max_tiles, GRID_6X6) < 1e-5


@pytest.mark.parametrize(
    ("height", "width"),
    [(384, 384), (480, 640), (2304, 384), (1080, 1920), (37, 2000), (3000, 3001), (1, 4000), (5000, 1)],
)
def test_anyres_equals_transformers_at_27_patches(height: int, width: int) -> None:
    pytest.importorskip("transformers")
    worst = check_pack(height, width, 27, 9, GRID_6X6)
    print(f"anyres {height}x{width}: largest difference to transformers {worst:.2e}")
    assert worst < 1e-5


@settings(deadline=None, max_examples=examples(100))
@given(height=st.integers(1, 900), width=st.integers(1, 900), retain=st.floats(0.01, 1), seed=st.integers(0, 999))
def test_anyres_merges_base_and_grid_apart(height: int, width: int, retain: float, seed: int) -> None:
    plan = AnyresPlan.of(height, width, 20, 5, [(20 * h, 20 * w) for h, w in GRID_6X6], 2)
    tiles = drawn_rows(seed, plan.n_tiles * 25, 8).reshape(plan.n_tiles, 25, 8)
    newline = np.full(8, 50, np.float32)
    full, got = anyres_pack(plan, tiles, newline), anyres_pack(plan, tiles, newline, retain)
    assert len(got.rows) == plan.count(retain)

    base = merge_rows(tiles[0], retain)
    n = len(base.rows)
    assert np.array_equal(got.rows[:n], base.rows)
    grid = merge_rows(np.ascontiguousarray(full.rows[25:][full.slots[25:] >= 0]), retain) if plan.n_slots > 25 else None
    kept = got.slots[n:]
    assert (kept == -1).sum() == plan.grid_h
    if grid is not None:
        assert np.array_equal(got.rows[n:][kept >= 0], grid.rows)
        assert (kept[kept >= 0] - 25).tolist() == grid.slots.tolist()
    row_of = np.cumsum(kept == -1)[kept >= 0]  # newlines passed before each survivor
    assert row_of.tolist() == ((kept[kept >= 0] - 25) // max(plan.grid_w, 1)).tolist()
    assert (got.slots[got.owners] >= 0).all()
    survivors = got.slots[got.slots >= 0]
    assert np.array_equal(got.slots[got.owners[survivors]], survivors)


def test_anyres_refuses_what_cannot_be() -> None:
    with pytest.raises(UsageError, match="image height is 0"):
        AnyresPlan.of(0, 5, 20, 5, [(20, 20)])
    with pytest.raises(UsageError, match="multiple of the tile side"):
        AnyresPlan.of(5, 5, 20, 5, [(20, 30)])
    with pytest.raises(UsageError, match="n_pinpoints is 0"):
        AnyresPlan.of(5, 5, 20, 5, [])
    plan = AnyresPlan.of(50, 70, 20, 5, [(40, 60)])
    with pytest.raises(ValueError, match="7x25x8"):
        anyres_pack(plan, np.zeros((6, 25, 8), np.float32), np.zeros(8, np.float32))
    broken = AnyresPlan(**{**plan.__dict__, "crop_h": 99})
    with pytest.raises(UsageError, match="not made by aim_anyres_plan"):
        broken.count()
