"""Merging inside the vision tower, against transformers' layers with scipy's clustering between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import checkpoints  # noqa: E402
from reference_ward import partition  # noqa: E402
from test_tiles import CLIP_MEAN, CLIP_STD, converted, open_mmproj  # noqa: E402

from aim_local import LoadConfig, VisionLLM, demo, store  # noqa: E402
from aim_local.errors import ModelError, UsageError  # noqa: E402
from aim_local.models.tiles import TileTower  # noqa: E402
from aim_local.native.library import mtmd  # noqa: E402
from aim_local.native.visual import TileEncoder, load_merging, merges  # noqa: E402
from aim_local.reduction.planner import VisionShape, encoder_flops  # noqa: E402

TOLERANCE = 2e-5
N_LAYERS, DEPTH = 6, 0.34  # layers 0 and 1 see all patches


def merged_rows(model: Any, tile: np.ndarray, family: str, retain: float, weighed: bool = True) -> np.ndarray:
    """What the merging tower gives: float32 [n_patches, n_embd]."""
    mean, std = (0.5, 0.5) if family == "onevision" else (CLIP_MEAN, CLIP_STD)
    pixels = (torch.from_numpy(tile).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    tower = model.model.vision_tower
    x = tower.embeddings(pixels.permute(2, 0, 1)[None])
    n_first = 0 if family == "onevision" else 1
    if n_first:
        x = tower.pre_layrnorm(x)
    n_layers = N_LAYERS
    bias, owners = None, torch.arange(x.shape[1])
    for il, layer in enumerate(tower.encoder.layers[:n_layers]):
        if il == round(DEPTH * n_layers):
            found = np.array(partition(x[0, n_first:].numpy(), int((x.shape[1] - n_first) * retain)))
            owners = torch.from_numpy(np.concatenate([np.arange(n_first), n_first + found]))
            sizes = torch.bincount(owners).float()
            x = torch.zeros(1, len(sizes), x.shape[2]).index_add_(1, owners, x) / sizes[None, :, None]
            bias = sizes.log().expand(1, 1, len(sizes), -1) if weighed else None
        x = layer(x, bias)
        x = x[0] if isinstance(x, tuple) else x
    return np.asarray(model.model.multi_modal_projector(x[:, owners[n_first:]])[0].numpy())


@torch.no_grad()
@pytest.mark.parametrize("retain", [0.75, 0.5, 0.1])
@pytest.mark.parametrize("family", ["onevision", "llava"])
def test_merging_towers_equal_transformers(
    tmp_path: Path, family: str, retain: float, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = checkpoints.Shape(grid=9, n_vision=N_LAYERS, seed=5)
    path, model = converted(tmp_path, family, shape)
    tile = np.random.default_rng(1).integers(0, 256, (shape.side, shape.side, 3), np.uint8)
    want = merged_rows(model, tile, family, retain)
    load_merging(retain, DEPTH)
    context = open_mmproj(path)
    try:
        assert merges(context)
        got = TileEncoder(context, n_threads=2).encode(tile)
    finally:
        mtmd.mtmd_free(context)
    difference = np.abs(got - want).max() / np.abs(want).max()
    unweighed = np.abs(merged_rows(model, tile, family, retain, weighed=False) - want).max() / np.abs(want).max()
    with capsys.disabled():
        print(f"\n  {family}, {retain}: {difference:.1e} of the largest; without sizes {unweighed:.1e}")
    assert difference < TOLERANCE
    assert unweighed > 10 * TOLERANCE, "sizes have to matter here"


def test_it_is_the_next_tower_that_merges_and_no_other(tmp_path: Path) -> None:
    path, _ = converted(tmp_path, "onevision", shape := checkpoints.Shape(grid=6, n_vision=4))
    tile = np.random.default_rng(2).integers(0, 256, (shape.side, shape.side, 3), np.uint8)
    load_merging(0.5, 0.5)
    contexts = [open_mmproj(path), open_mmproj(path)]
    try:
        n_rows = [len(np.unique(TileEncoder(c, n_threads=1).encode(tile), axis=0)) for c in contexts]
    finally:
        for context in contexts:
            mtmd.mtmd_free(context)
    assert n_rows == [18, 36]


def demo_rows(**options: Any) -> tuple[np.ndarray, str]:
    clip = next(demo.held_out(1))
    folder = store.bundled_folder()
    assert folder is not None
    with VisionLLM.load(folder, config=LoadConfig(n_threads=1, cache_media=False, **options)) as llm:
        frame_rows = llm.model.tower.frame_rows if llm.model.tower else None
        assert frame_rows is not None
        return frame_rows(clip.frames()[0]), llm.model.vision_kernels


@pytest.mark.skipif(store.bundled_folder() is None, reason="this checkout has no bundled model")
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_packed_weights_merge_as_well(precision: str) -> None:
    exact, _ = demo_rows(vision_precision="exact", vision_merge=0.5)
    packed, name = demo_rows(vision_precision=precision, vision_merge=0.5)
    assert name.endswith("0.5 of the patches from 0.5 of its depth on")
    assert np.linalg.norm(packed - exact) < 0.03 * np.linalg.norm(exact)
    full, _ = demo_rows(vision_precision="exact")
    assert np.linalg.norm(full - exact) > 0.01 * np.linalg.norm(full), "it did merge"


def test_clips_are_kept_apart_by_what_the_tower_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip that was encoded with merging, or with almost the same, is not taken for another's."""
    monkeypatch.setenv("AIM_LOCAL_HOME", str(tmp_path))
    clip = demo.write_clip(next(demo.held_out(1)), tmp_path / "clip.mp4")
    ways = [(1.0, 0.5), (0.5, 0.5), (0.4999999, 0.5), (0.5, 0.4999999), (0.5, 0.9)]
    found, alone = list[np.ndarray](), list[np.ndarray]()
    for cache, into in ((False, alone), (True, found), (True, found)):
        for retain, depth in ways:
            config = LoadConfig(n_threads=1, vision_merge=retain, vision_merge_depth=depth, cache_media=cache)
            with VisionLLM.load(config=config) as llm:
                prefill = llm.prefill("What appears?", [clip])
                into.append(prefill.logits)
                assert (prefill.stats.n_tiles_cached > 0) == (cache and len(found) > len(ways))
    for i, logits in enumerate(found):
        assert np.array_equal(logits, alone[i % len(ways)]), ways[i % len(ways)]
    distinct = {logits.tobytes() for logits in alone}
    assert len(distinct) == 4, "18 of 36 patches at layer 2 of 3, or 17, or at layer 1"


@pytest.mark.parametrize(("retain", "n"), [(0.7, 70), (0.58, 58), (0.29, 29)])
def test_the_plan_and_the_tower_count_alike(tmp_path: Path, retain: float, n: int) -> None:
    shape = checkpoints.Shape(grid=10, n_vision=2)
    path, _ = converted(tmp_path, "onevision", shape)
    tile = np.random.default_rng(3).integers(0, 256, (shape.side, shape.side, 3), np.uint8)
    with VisionLLM.load(path.parent, config=LoadConfig(n_threads=1, vision_merge=retain)) as llm:
        tower = llm.model.tower
        assert isinstance(tower, TileTower)
        assert tower.facts is not None
        assert len(np.unique(tower.encoder.encode(tile), axis=0)) == tower.facts.vision.n_merged == n


def test_a_tower_of_one_layer_has_nothing_to_merge_between(tmp_path: Path) -> None:
    path, _ = converted(tmp_path, "onevision", checkpoints.Shape(grid=6, n_vision=1))
    with pytest.raises(ModelError, match="cannot merge inside"):
        VisionLLM.load(path.parent, config=LoadConfig(vision_merge=0.5))
    VisionLLM.load(path.parent, config=LoadConfig(vision_merge_depth=0.99999999)).close()  # off is off


@pytest.mark.parametrize(("option", "value"), [("vision_merge", 0), ("vision_merge", 1.5), ("vision_merge_depth", 1)])
def test_shares_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{option} is {value}; it is "):
        LoadConfig(**{option: value})


def test_the_plan_counts_what_is_left_out() -> None:
    shape = VisionShape(n_layer=12, n_embd=384, n_ff=1536, n_head=6, n_patch=256, patch_px=14, n_embd_text=896)
    half = shape.merged(0.5, 1 / 3)
    assert (half.n_merged, half.il_merged) == (128, 4)
    assert 0.62 < encoder_flops(half, 1) / encoder_flops(shape, 1) < 0.68
    assert shape.merged(1.0, 0.5) == shape


def test_a_tower_of_others_is_refused(tmp_path: Path) -> None:
    """LLaVA-1.5 that does not name its feature layer is computed by upstream's graph."""
    path, _ = converted(tmp_path, "llava", checkpoints.Shape(grid=6))
    stripped = without(path, "clip.vision.feature_layer", tmp_path / "stripped.gguf")
    with pytest.raises(ModelError, match="cannot merge inside; leave vision_merge at 1"):
        VisionLLM.load(path.with_name("model.gguf"), mmproj=stripped, config=LoadConfig(vision_merge=0.5))


def without(path: Path, key: str, out: Path) -> Path:
    """A copy of a GGUF without one key."""
    import gguf

    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in (key, "general.architecture"):
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for t in reader.tensors:
        writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
