"""Visual tokens natively against torch, transformers and an independent numpy version of token merging."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_local.errors import NativeError
from aim_local.native.library import mtmd
from aim_local.native.visual import (
    AnyresPlan,
    TileEncoder,
    anyres_pack,
    merge_count,
    merge_rows,
    pool_rows,
    pool_side,
    projector,
)
from aim_local.reduction.planner import merge_count as planned_count

# the same draws every time: one in ten thousand has a tie within 1e-7, which float32 may settle the other way
REPEATABLE = settings(deadline=None, max_examples=150, derandomize=True)


def drawn_rows(seed: int, n: int, n_embd: int) -> np.ndarray:
    """Rows with neighbours alike, as pictures have: a slow wave plus noise."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.arange(n)[:, None] / 3 + rng.uniform(0, 6, n_embd))
    return (wave + 0.3 * rng.standard_normal((n, n_embd))).astype(np.float32)


# --- pooling ---------------------------------------------------------------------------------------------------------


def test_pooling_equals_torch_interpolate() -> None:
    torch = pytest.importorskip("torch")
    worst = 0.0
    for side in range(1, 28):
        rows = drawn_rows(side, side * side, 12)
        grid = torch.from_numpy(rows).reshape(1, side, side, -1).permute(0, 3, 1, 2)
        want = torch.nn.functional.interpolate(grid, size=[math.ceil(side / 2)] * 2, mode="bilinear")
        got = pool_rows(rows, side)
        assert got.shape == (pool_side(side) ** 2, 12)
        worst = max(worst, float(np.abs(got - want[0].flatten(1).T.numpy()).max()))
    print(f"pooling: largest difference to torch over sides 1..27: {worst:.2e}")
    assert worst < 5e-6  # 4e-6 where torch was built without fused multiply-add


def test_pooling_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="9x4"):
        pool_rows(np.zeros((8, 4), np.float32), 3)
    with pytest.raises(ValueError, match="float32"):
        pool_rows(np.zeros((9, 4), np.float64), 3)  # type: ignore[arg-type]
    with pytest.raises(NativeError, match="side is 0"):
        pool_side(0)


# --- token merging ---------------------------------------------------------------------------------------------------


def numpy_merge(rows: np.ndarray, retain: float) -> tuple[np.ndarray, list[int], list[int]]:
    """The formulas of AIM section 3.1, as sets of members: nothing shared with the C++."""
    target = max(1, math.floor(len(rows) * retain + 1e-9))
    x = [row.astype(np.float64) for row in rows]
    members = [[i] for i in range(len(rows))]
    slots = list(range(len(rows)))
    while len(x) > target:
        r = min(len(x) - target, len(x) // 2)
        m = np.stack([row / np.linalg.norm(row) for row in x])
        similar = m[0::2] @ m[1::2].T
        nearest, score = similar.argmax(1), similar.max(1)
        gone = sorted(range(len(score)), key=lambda i: (-score[i], i))[:r]
        for j in range(len(x) // 2):
            joining = [2 * i for i in gone if nearest[i] == j]
            x[2 * j + 1] = np.mean([x[2 * j + 1], *(x[i] for i in joining)], axis=0)
            for i in joining:
                members[2 * j + 1] += members[i]
        left = [i for i in range(len(x)) if i not in {2 * g for g in gone}]
        x, members, slots = [x[i] for i in left], [members[i] for i in left], [slots[i] for i in left]
    owners = [0] * len(rows)
    for out, group in enumerate(members):
        for i in group:
            owners[i] = out
    return np.stack(x), slots, owners


SHARES = (1.0, 0.99, 0.75, 0.5, 0.4375, 1 / 3, 0.25, 0.1, 0.0156, 1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 49, 196, 576])
@pytest.mark.parametrize("retain", SHARES)
def test_merging_equals_numpy(n: int, retain: float) -> None:
    rows = drawn_rows(n, n, 48)
    want_rows, want_slots, want_owners = numpy_merge(rows, retain)
    got = merge_rows(rows, retain)
    assert len(got.rows) == merge_count(n, retain) == len(want_slots)
    assert got.slots.tolist() == want_slots
    assert got.owners.tolist() == want_owners
    assert np.abs(got.rows - want_rows).max() < 1e-5


@REPEATABLE
@given(n=st.integers(1, 120), n_embd=st.integers(16, 64), retain=st.floats(1e-3, 1.0), seed=st.integers(0, 10**6))
def test_merging_equals_numpy_on_drawn_shapes(n: int, n_embd: int, retain: float, seed: int) -> None:
    rows = drawn_rows(seed, n, n_embd)
    want_rows, want_slots, want_owners = numpy_merge(rows, retain)
    got = merge_rows(rows, retain, n_threads=1 + seed % 3)
    assert got.slots.tolist() == want_slots
    assert got.owners.tolist() == want_owners
    assert np.abs(got.rows - want_rows).max() < 1e-5


def test_merging_counts_of_the_paper() -> None:
    assert merge_count(196, 0.25) == 49
    assert merge_count(576, 0.4375) == 252
    assert merge_count(10, 0.7) == 7  # 10 * 0.7 is 7.000000000000001, and 6.99999988 as float32
    assert merge_count(0, 0.5) == 0
    assert merge_rows(drawn_rows(1, 196, 64), 0.25).slots.tolist() == list(range(3, 196, 4))


@settings(deadline=None, max_examples=500, derandomize=True)
@given(n=st.integers(0, 50_000), retain=st.floats(1e-6, 1.0) | st.fractions("1/997", 1, max_denominator=997).map(float))
def test_planned_count_is_the_merged_count(n: int, retain: float) -> None:
    assert planned_count(n, retain) == merge_count(n, retain)


@pytest.mark.parametrize("denominator", [100, 196, 729, 1000])
def test_counts_of_awkward_fractions_are_exact(denominator: int) -> None:
    """0.29 * 100 is 28.999999999999996: both sides must give the floor of the true fraction."""
    for n in (1, 49, 100, 196, 576, 729, 9409):
        for k in range(1, denominator + 1):
            want = max(1, n * k // denominator)
            assert planned_count(n, k / denominator) == merge_count(n, k / denominator) == want, (n, k)


def test_merging_settles_ties_by_index() -> None:
    rows = np.ones((9, 5), np.float32)
    got = merge_rows(rows, 7 / 9)
    assert got.slots.tolist() == [1, 3, 4, 5, 6, 7, 8]  # sources 0 and 2 go, into row 1
    assert got.owners.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_merging_bears_zero_rows() -> None:
    rows = drawn_rows(3, 20, 8)
    rows[4] = rows[5] = 0
    assert np.isfinite(merge_rows(rows, 0.25).rows).all()


def test_merging_does_not_depend_on_threads() -> None:
    rows = drawn_rows(5, 729, 64)
    one, three = merge_rows(rows, 0.3, n_threads=1), merge_rows(rows, 0.3, n_threads=3)
    assert np.array_equal(one.rows, three.rows)
    assert np.array_equal(one.owners, three.owners)


@pytest.mark.parametrize("retain", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_merging_refuses_other_shares(retain: float) -> None:
    with pytest.raises(NativeError, match=r"must lie in \(0, 1\]"):
        merge_rows(drawn_rows(1, 4, 4), retain)


# --- images of any resolution ----------------------------------------------------------------------------------------

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


@settings(deadline=None, max_examples=300)
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


@settings(deadline=None, max_examples=100)
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
    with pytest.raises(NativeError, match="image height is 0"):
        AnyresPlan.of(0, 5, 20, 5, [(20, 20)])
    with pytest.raises(NativeError, match="multiple of the tile side"):
        AnyresPlan.of(5, 5, 20, 5, [(20, 30)])
    with pytest.raises(NativeError, match="n_pinpoints is 0"):
        AnyresPlan.of(5, 5, 20, 5, [])
    plan = AnyresPlan.of(50, 70, 20, 5, [(40, 60)])
    with pytest.raises(ValueError, match="7x25x8"):
        anyres_pack(plan, np.zeros((6, 25, 8), np.float32), np.zeros(8, np.float32))
    broken = AnyresPlan(**{**plan.__dict__, "crop_h": 99})
    with pytest.raises(NativeError, match="not made by aim_anyres_plan"):
        broken.count()


# --- tiles through the vision tower ----------------------------------------------------------------------------------


def open_mmproj(path: Path, flash_attn: bool = False) -> Any:
    params = mtmd.mtmd_context_params_default()
    params.use_gpu = False
    params.print_timings = False
    params.warmup = False
    params.n_threads = 1
    params.flash_attn_type = int(flash_attn)  # off: flash attention rounds K and V to f16
    context = mtmd.mtmd_init_from_file(str(path).encode(), None, params)
    assert context, f"{path} does not load"
    return context


def converted(tmp: Path, family: str, shape: Any) -> tuple[Path, Any]:
    """A tiny checkpoint through our converter: (mmproj, the transformers model)."""
    import checkpoints

    from aim_local.convert import ConvertConfig, convert

    write, make = (
        (checkpoints.write_onevision, checkpoints.onevision_model)
        if family == "onevision"
        else (checkpoints.write_llava, checkpoints.llava_model)
    )
    model = make(shape)
    folder = write(tmp / f"{family}-{shape.grid}", shape, model=model)
    convert(folder, tmp / f"{family}-{shape.grid}-gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    return tmp / f"{family}-{shape.grid}-gguf" / "mmproj.gguf", model


def hf_rows(model: Any, tiles: np.ndarray, mean: float | list[float], std: float | list[float]) -> np.ndarray:
    """Projected rows of uint8 tiles [n, side, side, 3], the way LlavaOnevisionModel and LlavaModel select features."""
    import torch

    pixels = (torch.from_numpy(tiles).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    inner = model.model
    with torch.no_grad():
        states = inner.vision_tower(pixels.permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
        selected = states[model.config.vision_feature_layer]
        if model.config.vision_feature_select_strategy == "default":
            selected = selected[:, 1:]
        return np.asarray(inner.multi_modal_projector(selected).numpy())


CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def with_rest(shape: Any) -> Any:
    """Odd grids get pixels that no patch covers, as the 6 of SigLIP's 384."""
    side = property(lambda self: self.grid * self.patch + self.grid % 2 * 3)
    return type("Rest", (shape,), {"side": side})


@pytest.mark.parametrize("grid", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("family", ["onevision", "llava"])
def test_encoded_tiles_equal_transformers(tmp_path: Path, family: str, grid: int) -> None:
    pytest.importorskip("transformers")
    checkpoints = pytest.importorskip("checkpoints")
    shape = with_rest(checkpoints.Shape)(grid=grid, n_vision=2 + grid % 3, heads_vision=1 + grid % 2, seed=grid)
    path, model = converted(tmp_path, family, shape)
    tiles = np.random.default_rng(grid).integers(0, 256, (2, shape.side, shape.side, 3), np.uint8)
    mean, std = ([0.5] * 3, [0.5] * 3) if family == "onevision" else (CLIP_MEAN, CLIP_STD)
    want = hf_rows(model, tiles, mean, std)
    off = {}
    for flash_attn in (False, True):
        context = open_mmproj(path, flash_attn)
        try:
            encoder = TileEncoder(context, n_threads=2)
            assert (encoder.side, encoder.patches_per_side, encoder.n_embd) == (shape.side, grid, shape.d_text)
            got = np.stack([encoder.encode(tile) for tile in tiles])
            check_newline(encoder, model, family)
            assert projector(context) == {"onevision": "llava_onevision", "llava": "mlp"}[family]
        finally:
            mtmd.mtmd_free(context)
        off[flash_attn] = float(np.abs(got - want).max() / np.abs(want).max())
    print(f"{family} {grid}x{grid}: {off[False]:.1e} of the largest value, {off[True]:.1e} with flash attention")
    assert off[False] < 1e-5
    assert off[True] < 3e-3  # it rounds K and V to float16


def check_newline(encoder: TileEncoder, model: Any, family: str) -> None:
    newline = encoder.newline()
    if family == "llava":
        assert newline is None
        return
    assert newline is not None
    assert np.array_equal(newline, model.model.image_newline.detach().numpy())


def test_encoder_refuses_other_tiles(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    checkpoints = pytest.importorskip("checkpoints")
    path, _ = converted(tmp_path, "onevision", checkpoints.Shape(grid=5))
    context = open_mmproj(path)
    try:
        encoder = TileEncoder(context)
        with pytest.raises(ValueError, match="takes uint8"):
            encoder.encode(np.zeros((19, 20, 3), np.uint8))
        with pytest.raises(ValueError, match="float32"):
            encoder.encode(np.zeros((20, 20, 3), np.float32))  # type: ignore[arg-type]
    finally:
        mtmd.mtmd_free(context)


def test_null_context_is_an_error() -> None:
    assert not TileEncoder.supports(None)
    with pytest.raises(NativeError, match="context is null"):
        projector(None)
