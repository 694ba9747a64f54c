"""Why Q8_0 weights keep other visual tokens: only those whose score is within the noise of quantisation flip."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, onevision_model, write_onevision

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert, quantize
from aim_local.demo import held_out, write_clip
from aim_local.store.names import resolve


def benchmark() -> Any:
    """benchmarks/kept_sets.py, which is a script and in no package."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "kept_sets.py"
    spec = importlib.util.spec_from_file_location("kept_sets", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["kept_sets"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kept_sets = benchmark()


def check_flips(cuts: list[Any]) -> None:
    """No flip is further from the cut than twice the largest noise, and flips are nearer to it than other tokens."""
    for cut in cuts:
        assert (cut.margin[cut.flipped] <= 2 * cut.noise.max()).all(), f"layer {cut.il}"
    flipped = np.concatenate([c.margin[c.flipped] for c in cuts])
    others = np.concatenate([c.margin[~c.flipped] for c in cuts])
    assert len(flipped) > 0, "nothing flipped: the test says nothing"
    assert np.median(flipped) < np.median(others) / 4


def test_a_cut_by_hand() -> None:
    """Scores 8 4 | 2 1 in powers of two; the other run lifts the third above the second."""
    cut = kept_sets.make_cut(3, np.array([8.0, 4, 2, 1]), np.array([8.0, 2.5, 3, 1]), 2)
    assert cut.flipped.tolist() == [False, True, True, False]
    assert np.allclose(cut.margin / np.log(2), [1.5, 0.5, 0.5, 1.5])
    assert np.allclose(cut.noise, [0, np.log(4 / 2.5), np.log(1.5), 0])
    assert cut.overlap == 0.5


def test_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cuts, free = [], []
    for seed in range(4):
        shape = Shape(grid=8, n_text=6, heads=2, heads_kv=2, seed=seed)
        source = write_onevision(tmp_path / f"hf{seed}", shape, model=onevision_model(shape))
        for kind in ("f32", "q8_0"):
            convert(source, tmp_path / f"{kind}{seed}", ConvertConfig(text_type=kind, vision_type="f32"))
        config = LoadConfig(n_threads=1)
        clip = np.random.default_rng(seed).integers(0, 256, (6, shape.side, shape.side, 3), dtype=np.uint8)
        tokens = VisualTokenConfig(prune_layers=(1, 5), merge_retain=1.0)
        with (
            VisionLLM.load(tmp_path / f"f32{seed}", config=config) as own,
            VisionLLM.load(tmp_path / f"q8_0{seed}", config=config) as other,
        ):
            found, overlap = kept_sets.compare(own, other, "What happens?", [clip], tokens=tokens)
        cuts, free = cuts + found, [*free, overlap]
    with capsys.disabled():
        print(f"\nrandom weights, q8_0:\n{kept_sets.table(cuts, free)}")
    check_flips(cuts)


def test_demo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cuts, free = [], []
    quantize(resolve().model.parent, tmp_path / "q8", "q8_0", threads=1)
    with VisionLLM.load() as own, VisionLLM.load(tmp_path / "q8") as other:
        for clip in held_out(12):
            path = write_clip(clip, tmp_path / "clip.mp4")
            found, overlap = kept_sets.compare(own, other, clip.question, [path])
            cuts, free = cuts + found, [*free, overlap]
    with capsys.disabled():
        print(f"\ndemo model, q8_0:\n{kept_sets.table(cuts, free)}")
    check_flips(cuts)
    assert np.mean(free) > 0.95
