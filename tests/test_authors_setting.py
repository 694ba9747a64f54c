"""The authors' own reduction of LLaVA-1.5's pictures: merged before the projector, by the keys of CLIP's last layer.

Truth: transformers' tower with a hook on that layer's K projection, the merging's formulas in numpy, transformers'
projector on the merged features, and for what is pruned afterwards the oracle of reference_aim.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, llava_model, write_llava, write_onevision  # noqa: E402
from limits import LIMITS  # noqa: E402
from llava_next_case import F32, as_upstream  # noqa: E402
from pruning_case import Case, Loaded  # noqa: E402
from reference_hf import Reference as HfReference  # noqa: E402
from reference_merging import drawn_rows, numpy_merge  # noqa: E402
from test_pruning import check_whole_path, encode  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig  # noqa: E402
from aim_local.convert import ConvertConfig, convert  # noqa: E402
from aim_local.errors import UsageError  # noqa: E402
from aim_local.lab.bench.benchmark import BenchConfig  # noqa: E402
from aim_local.models.llava import Llava  # noqa: E402
from aim_local.models.pixels import image_tiles  # noqa: E402
from aim_local.native.visual import merge_by_keys, merge_rows  # noqa: E402
from aim_local.settings import parse_setting  # noqa: E402

N_CONFIGS = 12
PROMPT = "USER: <__media__>\n<__media__>\nWhat is it? ASSISTANT:"
KEYS = VisualTokenConfig(merge_by="keys", merge_retain=0.4375, prune_layers=None)


def by_keys(rows: np.ndarray, keys: np.ndarray, retain: float) -> tuple[np.ndarray, list[int]]:
    """AIM section 3.1 with other rows to compare by; both are averaged, so a further round compares averages."""
    target, slots = max(1, math.floor(len(rows) * retain + 1e-9)), list(range(len(rows)))
    x, k = [r.astype(np.float64) for r in rows], [r.astype(np.float64) for r in keys]
    while len(x) > target:
        r = min(len(x) - target, len(x) // 2)
        m = np.stack([key / np.linalg.norm(key) for key in k])
        similar = m[0::2] @ m[1::2].T
        nearest, score = similar.argmax(1), similar.max(1)
        gone = sorted(range(len(score)), key=lambda i: (-score[i], i))[:r]
        for j in range(len(x) // 2):
            joining = [2 * i for i in gone if nearest[i] == j]
            for rows_of in (x, k):
                rows_of[2 * j + 1] = np.mean([rows_of[2 * j + 1], *(rows_of[i] for i in joining)], axis=0)
        left = [i for i in range(len(x)) if i not in {2 * g for g in gone}]
        x, k, slots = [x[i] for i in left], [k[i] for i in left], [slots[i] for i in left]
    return np.stack(x), slots


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def load(folder: Path, shape: Shape, media: list[np.ndarray], tokens: VisualTokenConfig, **config: Any) -> Loaded:
    model = llava_model(shape)
    source = write_llava(folder / "hf", shape, model=model)
    convert(source, folder / "gguf", ConvertConfig("f32", "f32"))
    llm = VisionLLM.load(folder / "gguf", config=LoadConfig(**{**vars(F32), **config}))
    return Loaded(Case("llava", shape, media, tokens, 0), model, HfReference(source, model), llm, PROMPT)


def tower_of(loaded: Loaded) -> Llava:
    tower = loaded.llm.model.tower
    assert isinstance(tower, Llava)
    return tower


def transformers_tower(loaded: Loaded, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and keys of a picture, [n, d_vision]: K of the tower's last layer, as a hook sees it."""
    seen: list[Any] = []
    tower = loaded.model.model.vision_tower
    hook = tower.encoder.layers[-1].self_attn.k_proj.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        pixels = loaded.hf.images([item], return_tensors="pt")["pixel_values"]
        features = tower(pixels, output_hidden_states=True).hidden_states[-2][0, 1:]
    hook.remove()
    return features.numpy(), seen[0][0, 1:].numpy()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    shape = Shape(grid=6, n_text=4, heads_kv=4, seed=61)
    media = [picture(1, 40, 30), picture(2, 30, 60)]
    made = load(tmp_path_factory.mktemp("authors"), shape, media, KEYS)
    with made.llm:
        yield made


def merged_rows(loaded: Loaded) -> list[np.ndarray]:
    """Visual tokens of each picture by the formulas, [n, n_embd]; checks what they are made of."""
    out, tower = [], tower_of(loaded)
    for item in loaded.case.media:
        both = tower.encoder.features(image_tiles(item, tower.pixels)[0], keys=True)
        features, keys = np.split(both, 2, axis=1)
        for got, want in zip((features, keys), transformers_tower(loaded, item), strict=True):
            assert np.abs(got - want).max() < LIMITS.rows * max(1.0, np.abs(want).max())
        # our own rows are merged: those of transformers, 3e-7 beside, may fall on the other side of a tie
        merged, _ = by_keys(features, keys, loaded.case.tokens.merge_retain)
        with torch.no_grad():
            out.append(loaded.model.model.multi_modal_projector(torch.tensor(merged).float()).numpy())
    return out


def draw(seed: int, folder: Path) -> Loaded:
    rng = np.random.default_rng(2000 + seed)
    n_layer = int(rng.integers(4, 9))
    n_vision = int(rng.integers(1, 4))
    shape = Shape(grid=int(rng.integers(5, 10)), n_text=n_layer, n_vision=n_vision, heads_kv=4, seed=seed)
    l1 = int(rng.integers(0, n_layer - 1))
    layers = (l1, int(rng.integers(l1 + 1, n_layer + 1)))
    retain = float(rng.choice([0.7, 0.4375, 0.25, 0.125]))
    tokens = VisualTokenConfig(merge_by="keys", merge_retain=retain, prune_layers=layers)
    media = [picture(10 * seed + i, *(int(n) for n in rng.integers(20, 80, 2))) for i in range(2)]
    return load(folder, shape, media, tokens, n_ubatch=int(rng.choice([16, 64, 512])))


@pytest.mark.parametrize("seed", few(range(N_CONFIGS), 3))
def test_whole_path(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = draw(seed, tmp_path)
    with loaded.llm:
        rows = merged_rows(loaded)
        for got, want in zip(encode(loaded, loaded.case.tokens), rows, strict=True):
            assert got.shape == want.shape
            assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max())
        check_whole_path(loaded, rows, capsys)


@pytest.mark.parametrize(("n", "retain"), [(36, 0.4375), (49, 0.25), (64, 0.7), (5, 0.01), (9, 1.0)])
def test_keys_decide_and_rows_are_averaged(n: int, retain: float) -> None:
    rows, keys = drawn_rows(n, n, 12), drawn_rows(n + 1, n, 7)
    got, (want, slots) = merge_by_keys(rows, keys, retain), by_keys(rows, keys, retain)
    assert got.slots.tolist() == slots
    assert np.abs(got.rows - want).max() < 1e-6
    same = merge_by_keys(rows, rows, retain)
    assert np.array_equal(same.slots, merge_rows(rows, retain).slots)
    assert np.abs(same.rows - numpy_merge(rows, retain)[0]).max() < 1e-6


def test_the_projector_alone_ends_where_the_tower_does(loaded: Loaded) -> None:
    encoder = tower_of(loaded).encoder
    tile = picture(3, encoder.side, encoder.side)
    whole, apart = encoder.encode(tile), encoder.project(encoder.features(tile))
    assert np.abs(whole - apart).max() < 1e-6 * np.abs(whole).max()


def test_the_setting_by_name() -> None:
    found = parse_setting("authors")
    assert found == VisualTokenConfig(merge_by="keys", merge_retain=0.4375, prune_layers=(13, 21))
    assert round(found.merge_retain * 576) == 252
    assert parse_setting("authors:prune=off:keep=0.25:merge=keys").merge_by == "keys"


def test_all_retained_is_nothing_done(loaded: Loaded) -> None:
    off = loaded.llm.prefill(PROMPT, loaded.case.media, VisualTokenConfig.off(), raw=True)
    kept = loaded.llm.prefill(PROMPT, loaded.case.media, parse_setting("off:merge=keys"), raw=True)
    assert np.array_equal(off.logits, kept.logits)


def test_rows_of_one_setting_are_not_those_of_another(loaded: Loaded) -> None:
    """What is kept on disk are the projector's rows; merging by keys neither takes nor leaves any there."""
    with VisionLLM.load(loaded.llm.model.paths.model.parent, config=F32) as llm:
        for tokens, from_store in ((KEYS, 0), (VisualTokenConfig.off(), 0), (KEYS, 0), (VisualTokenConfig.off(), 2)):
            want = loaded.llm.prefill(PROMPT, loaded.case.media, tokens, raw=True)
            found = llm.prefill(PROMPT, loaded.case.media, tokens, raw=True)
            assert found.stats.n_tiles_cached == from_store
            assert np.array_equal(found.logits, want.logits)


def test_a_picture_can_be_drawn(loaded: Loaded) -> None:
    found = loaded.llm.prefill(PROMPT, loaded.case.media, KEYS, raw=True)
    assert found.stats.n_visual == 2 * 15  # 36 * 0.4375
    assert sorted(set(found.trace.grids[1].owners.ravel().tolist())) == list(range(15, 30))


def test_what_has_no_keys_is_refused(loaded: Loaded, tmp_path: Path) -> None:
    """A clip, LLaVA-OneVision, and a mmproj of upstream's script."""
    clip = np.stack([picture(4, 30, 30)] * 2)
    with pytest.raises(UsageError, match=r"is for pictures with LLaVA-1\.5, .* not for a video; use tokens=paper"):
        loaded.llm.prefill("USER: <__media__>\nWhat?", [clip], KEYS, raw=True)
    model, mmproj = loaded.llm.model.paths.model, loaded.llm.model.paths.mmproj
    assert mmproj is not None
    foreign = as_upstream(mmproj, tmp_path / "mmproj.gguf", says_layer=True)
    with (
        VisionLLM.load(model, foreign, F32) as llm,
        pytest.raises(UsageError, match=r"has no keys to merge by.*convert the checkpoint again"),
    ):
        llm.prefill("USER: <__media__>\nWhat?", [picture(5, 30, 30)], KEYS, raw=True)
    shape = Shape(grid=4, seed=3)
    convert(write_onevision(tmp_path / "hf", shape), tmp_path / "gguf", ConvertConfig("f32", "f32"))
    with VisionLLM.load(tmp_path / "gguf", config=F32) as llm:
        for item in (picture(5, 30, 30), clip):
            with pytest.raises(UsageError, match=r"is for pictures with LLaVA-1\.5") as e:
                llm.prefill("<__media__>\nWhat?", [item], KEYS, raw=True)
            assert "\n" not in str(e.value)


def test_the_family_is_looked_at_before_the_layers() -> None:
    """The bundled model has 12 layers, `authors` asks for 21: nobody typed that."""
    with VisionLLM.load() as llm:
        for tokens in (parse_setting("authors"), parse_setting("authors:prune=off")):
            for media in ([picture(5, 30, 30)], [np.stack([picture(4, 30, 30)] * 2)], []):
                with pytest.raises(UsageError, match=r"is for pictures with LLaVA-1\.5.*not for this model"):
                    llm.prefill("What?", media, tokens)


def test_bench_refuses_it_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="setting 'authors' is for pictures, and bench measures a video"):
        BenchConfig(settings=("off", "authors"))
