"""Random models are what their shape says, and are written once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import bench_case
import gguf
import numpy as np
import pytest
from bench_case import silent
from thorough import few

from aim_local import VisionLLM, VisualTokenConfig
from aim_local.convert import WEIGHT_TYPES
from aim_local.errors import AimError, UsageError
from aim_local.lab.bench import cache
from aim_local.lab.bench.cache import random_model, synthetic_clip
from aim_local.lab.bench.session import PROMPT
from aim_local.lab.bench.shapes import (
    SHAPES,
    RandomShape,
    parse_shape,
    text_plan,
    vision_plan,
    write_text_gguf,
    write_vision_gguf,
)
from aim_local.lab.bench.weights import noise
from aim_local.media import probe_video
from aim_local.reduction.planner import encoder_flops, prefill_flops
from aim_local.store.gguf_header import read_header
from aim_local.store.names import ModelPaths

shape = bench_case.shape
paths = bench_case.paths


# --- shapes ----------------------------------------------------------------------------------------------------------


def n_params(plan: list[Any]) -> int:
    return sum(prod(tensor.source.shape) for tensor in plan)


def test_shapes_are_the_published_models() -> None:
    """Parameters as on the model cards of Qwen2-0.5B and Qwen2-7B; FLOPs as in AIM's table (docs/method.md)."""
    assert n_params(text_plan(SHAPES["0.5b"], "q4_0")) == 494_032_768
    assert n_params(text_plan(SHAPES["7b"], "q4_0")) == 7_615_616_512
    seven = SHAPES["7b"]
    assert round(prefill_flops(seven.text_shape, 100, [6272] * 28) / 1e12, 2) == 99.63
    block = 4 * 1152 * 1153 + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152  # attention, feed-forward, two norms
    embedding = 1152 * 3 * 14 * 14 + 1152 + 27 * 27 * 1152
    projector = 1152 * 3584 + 3584 * 3584 + 3 * 3584  # two layers and the newline
    assert n_params(vision_plan(seven, "f16")) == 26 * block + embedding + projector
    assert 21.3e12 <= encoder_flops(seven.vision_shape, 32) <= 25e12  # 21.3 in matrix products alone


def test_file_is_what_the_shape_says(shape: RandomShape, paths: ModelPaths) -> None:
    assert paths.mmproj
    with VisionLLM.load(paths.model, paths.mmproj) as llm:
        assert llm.text.shape == shape.text_shape
        assert llm.model.tower
        assert llm.model.tower.facts
        assert llm.model.tower.facts.vision == shape.vision_shape
        assert llm.text.n_ctx_train >= 192 * 196 + 101
        frames = np.zeros((3, 56, 56, 3), np.uint8)
        result = llm.prefill(PROMPT, [frames], tokens=VisualTokenConfig.off(), raw=True)
    assert result.stats.n_text == 100
    assert result.stats.n_visual == 3 * 4 + 1
    assert np.isfinite(result.logits).all()
    assert result.logits.std() > 0.01


def test_keys_and_types_are_the_converters(shape: RandomShape, tmp_path: Path) -> None:
    """A converted demo model has the same keys, but for what a tokenizer and a checkpoint bring along."""
    import aim_local

    bundled = next(Path(p) for p in aim_local.__path__ if (Path(p) / "data" / "model").is_dir()) / "data" / "model"
    write_text_gguf(shape, tmp_path / "model.gguf", "q4_0")
    write_vision_gguf(shape, tmp_path / "mmproj.gguf", "q8_0")
    for name in ("model.gguf", "mmproj.gguf"):
        ours, theirs = read_header(tmp_path / name), read_header(bundled / name)
        assert {k for k in theirs.metadata if not k.startswith(("tokenizer.", "general.", "qwen2.attention."))} <= set(
            ours.metadata
        )
        names = {
            t.name.replace("blk.1.", "blk.0.") for t in theirs.tensors if "blk" not in t.name or "blk.1." in t.name
        }
        assert names - {"output.weight"} <= {t.name for t in ours.tensors}
    types = {t.name: gguf.GGMLQuantizationType(t.type).name for t in read_header(tmp_path / "model.gguf").tensors}
    assert types["token_embd.weight"] == "Q8_0"  # the embedding table loses most from few bits
    assert types["blk.0.ffn_up.weight"] == "Q4_0"
    assert types["blk.0.attn_q.bias"] == "F32"


@pytest.mark.parametrize("name", WEIGHT_TYPES)
def test_weights_are_small_numbers_around_zero(name: str) -> None:
    kind = WEIGHT_TYPES[name]
    data = noise(kind)[: 1 << 14]
    values = data if data.dtype in (np.float32, np.float16) else gguf.quants.dequantize(data.view(np.uint8), kind)
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 0.0025  # four bits have no middle
    assert 0.018 < values.std() < 0.022


def test_same_shape_same_file_and_no_two_layers_alike(shape: RandomShape, paths: ModelPaths, tmp_path: Path) -> None:
    write_text_gguf(shape, tmp_path / "again.gguf", "q8_0")
    data = (tmp_path / "again.gguf").read_bytes()
    assert data == paths.model.read_bytes()
    header = read_header(tmp_path / "again.gguf")
    at = {t.name: header.data_offset + t.offset for t in header.tensors}
    first, second, gate = (at[name] for name in ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight", "blk.0.ffn_gate.weight"))
    n = 64 * 96 // 32 * 34
    assert len({data[first : first + n], data[second : second + n], data[gate : gate + n]}) == 3
    assert header.missing_bytes() == 0


def test_shape_forms() -> None:
    assert parse_shape("0.5b") == SHAPES["0.5b"]
    smaller = parse_shape("0.5b,vlayers=2")
    assert (smaller.text_shape, smaller.vision.n_layer) == (SHAPES["0.5b"].text_shape, 2)
    custom = parse_shape("layers=24,embd=896,ff=4864,heads=14,kv=2")
    assert custom == replace(SHAPES["0.5b"], name=custom.name)
    assert parse_shape("layers=2,embd=64,ff=96,heads=4").n_head_kv == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3b", "0.5b, 7b"),
        ("", "0.5b, 7b"),
        ("0.5b,", "no size"),
        ("0.5b,depth=3", "vlayers"),
        ("0.5b,layers=x", "layers=x"),
        ("0.5b,layers=0", "layers is 0"),
        ("0.5b,layers=-1", "no size"),
        ("0.5b,layers=2,layers=3", "layers=3"),
        ("layers=2,embd=64", "lacks ff, heads"),
        ("layers=2,embd=64,ff=96,heads=0", "heads is 0"),
        ("0.5b,kv=3", "heads in kv"),
        ("0.5b,heads=13", "embd in heads"),
        ("0.5b,vheads=7", "vembd in vheads"),
        ("0.5b,vocab=100", "vocab is 100"),
        ("0.5b,image=8", "smaller than a patch"),
    ],
)
def test_bad_shapes(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        parse_shape(text)
    assert "\n" not in str(error.value)


# --- cache -----------------------------------------------------------------------------------------------------------


def test_written_once_and_the_size_told(shape: RandomShape) -> None:
    said: list[str] = []
    first = random_model(shape, "q4_0", "f16", said.append)
    stamp = first.model.stat().st_mtime_ns
    assert len(said) == 2
    assert all("GB" in line and str(cache.bench_folder()) in line for line in said)
    assert random_model(shape, "q4_0", "f16", said.append) == first
    assert (len(said), first.model.stat().st_mtime_ns) == (2, stamp)
    assert random_model(shape, "q8_0", None, said.append).mmproj is None
    assert (
        random_model(replace(shape, vision=replace(shape.vision, n_layer=1)), "q4_0", "f16", silent).model
        == first.model
    )


def test_nothing_half_written_stays(shape: RandomShape, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "write_text_gguf", lambda shape, path, kind: fail(path))
    with pytest.raises(KeyboardInterrupt):
        random_model(shape, "q4_0", None, silent)
    assert list(cache.bench_folder().iterdir()) == []


def test_no_room(shape: RandomShape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    with pytest.raises(AimError, match="GB left"):
        random_model(shape, "q4_0", None, silent)


@pytest.mark.thorough
@pytest.mark.parametrize("n_frames", few([60, 70], 1))
def test_synthetic_clip_is_long_enough(n_frames: int) -> None:
    info = probe_video(synthetic_clip(n_frames))
    assert info.n_frames >= n_frames
    assert (info.width, info.height, info.codec) == (640, 360, "h264")
