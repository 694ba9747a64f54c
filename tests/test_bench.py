"""bench: random models are what their shape says, ratios are paired by round, both libraries are given the same work.

AIM_STOCK_LIB names a folder with the unpatched libraries; without it our own stand in for them.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.cli import app
from aim_local.convert import WEIGHT_TYPES
from aim_local.errors import AimError, ContextError, MediaError, NativeError, UsageError
from aim_local.lab.bench import cache, stock, stock_side
from aim_local.lab.bench.benchmark import BenchConfig, BenchResult, run_bench
from aim_local.lab.bench.cache import random_model, synthetic_clip
from aim_local.lab.bench.grid import Arm, Grid, Record, measure, parse_frames, parse_list
from aim_local.lab.bench.report import cells, notes, table
from aim_local.lab.bench.session import PROMPT, SKIPPED, Measured, Session, given_tokens
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
from aim_local.lab.bench.workers import Worker
from aim_local.lab.measure import Spread, paired_ratio, peak_rss_bytes, reset_peak_rss
from aim_local.media import probe_video
from aim_local.models.prompt import RAW_MARKER
from aim_local.native.library import LIB_FOLDER
from aim_local.reduction.planner import encoder_flops, prefill_flops
from aim_local.settings import parse_setting
from aim_local.store.gguf_header import read_header
from aim_local.store.names import ModelPaths

TINY = "layers=8,embd=64,ff=96,heads=4,kv=2,vocab=300,vlayers=2,vembd=64,vff=128,vheads=4,image=56,patch=14"
STOCK_LIB = os.environ.get("AIM_STOCK_LIB")


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def shape() -> RandomShape:
    return parse_shape(TINY)


@pytest.fixture(scope="module")
def paths(shape: RandomShape, tmp_path_factory: pytest.TempPathFactory) -> ModelPaths:
    folder = tmp_path_factory.mktemp("random")
    write_text_gguf(shape, folder / "model.gguf", "q8_0")
    write_vision_gguf(shape, folder / "mmproj.gguf", "f16")
    return ModelPaths("tiny", folder / "model.gguf", folder / "mmproj.gguf")


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
        assert llm.vision
        assert llm.vision.shape == shape.vision_shape
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


def test_synthetic_clip_is_long_enough() -> None:
    info = probe_video(synthetic_clip(70))
    assert info.n_frames >= 70
    assert (info.width, info.height, info.codec) == (640, 360, "h264")


# --- one model -------------------------------------------------------------------------------------------------------


def test_session_counts_and_stages(paths: ModelPaths) -> None:
    clip = synthetic_clip(8)
    with Session(paths, LoadConfig(), video=clip) as session:
        for setting in ("off", "paper", "budget=0.85"):
            tokens = parse_setting(setting)
            counts, measured = session.count(6, tokens), session.run(6, tokens, n_decode=3)
            assert (counts.n_text, counts.n_visual, counts.n_visual_full) == (
                measured.n_text,
                measured.n_visual,
                measured.n_visual_full,
            )
            assert measured.n_prompt == counts.n_text + counts.n_visual
            parts = sum(measured.ms[s] for s in ("decode_video", "preprocess", "vision", "merge", "prefill"))
            assert 0 < parts <= measured.ms["first_token"] + 0.01
            assert measured.ms["decode"] > 0
            assert 0 < measured.ms["prefill_cpu"] < 2 * os.cpu_count() * measured.ms["prefill"]  # type: ignore[operator]
            assert measured.ms["importance"] < measured.ms["prefill"]
        with pytest.raises(MediaError, match=r"120 frames, 500"):
            session.run(500, VisualTokenConfig.off())


def test_skipping_the_tower_changes_no_count(paths: ModelPaths) -> None:
    clip = synthetic_clip(8)
    with Session(paths, LoadConfig(), video=clip) as whole, Session(paths, LoadConfig(), skip_vision=True) as alone:
        for setting in ("off", "paper", "fast"):
            tokens = parse_setting(setting)
            a, b = whole.run(5, tokens, n_decode=2), alone.run(5, tokens, n_decode=2)
            assert replace(a, ms={}, peak_rss=0) == replace(b, ms={}, peak_rss=0)
            assert set(a.ms) - set(b.ms) == set(SKIPPED)
        full, given = alone.run(5, VisualTokenConfig.off(), n_decode=2), alone.run_tokens(5, n_decode=2)
        assert replace(full, ms={}, peak_rss=0, kv_bytes=0) == replace(given, ms={}, peak_rss=0, kv_bytes=0)


def test_decode_costs_are_those_of_given_tokens(paths: ModelPaths) -> None:
    """Whatever the random weights answer, an end of turn among it too, so many tokens are decoded."""
    with Session(paths, LoadConfig(), skip_vision=True) as session:
        before = session.run(2, VisualTokenConfig.off(), n_decode=1).kv_bytes
        assert session.run(2, VisualTokenConfig.off(), n_decode=400).kv_bytes > before
    assert given_tokens(300) == [stock_side.given_token(i) for i in range(300)]
    assert len(PROMPT.replace(RAW_MARKER, "")) == 100


def test_peak_memory_begins_again() -> None:
    if not reset_peak_rss():
        pytest.skip("this system keeps one peak for the whole process")
    before = peak_rss_bytes()
    block = np.ones(1 << 24)  # 128 MiB
    with_block = peak_rss_bytes()
    assert with_block - before > 100 << 20
    del block
    reset_peak_rss()
    assert with_block - peak_rss_bytes() > 100 << 20


# --- rounds and ratios -----------------------------------------------------------------------------------------------


def measured(prefill: float, decode: float = 1.0, n_prompt: int = 100, **ms: float) -> Measured:
    return Measured(8, 100, 0, 0, n_prompt, 1 << 20, None, 2e9, {"prefill": prefill, "decode": decode, **ms})


def test_paired_ratio_by_hand() -> None:
    """The machine is three times slower in round 2: medians of the sides would say 4 / 1, the pairs say 2."""
    assert paired_ratio([2, 12, 4], [1, 6, 1]) == Spread(2, 2, 4, 3)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1, 2], [1])
    assert Spread.of([10, 8, 12]).width == pytest.approx(0.4)


def test_arms_take_turns() -> None:
    order: list[str] = []

    def arm(name: str) -> Arm:
        return Arm(name, lambda n: (order.append(f"{name}{n}"), measured(1.0))[1])

    grid = measure([8, 32], [arm("a"), arm("b")], 2, silent)
    assert order == ["a8", "b8"] * 3 + ["a32", "b32"] * 3
    assert [r.round for r in grid.records] == [0, 0, 1, 1, 2, 2] * 2
    assert len(grid.of(8, "a")) == 2  # without the warm-up


def test_an_arm_that_fails_leaves_the_others() -> None:
    def fail(n_frames: int) -> Measured:
        if n_frames == 32:
            raise ContextError("the prompt needs more")
        return measured(2.0)

    grid = measure([8, 32], [Arm("off", fail), Arm("paper", lambda n: measured(1.0))], 2, silent)
    assert grid.failures == {(32, "off"): "the prompt needs more"}
    found = cells(grid)
    assert [(c.n_frames, c.arm, set(c.ratios)) for c in found] == [
        (8, "off", set()),
        (8, "paper", {"prefill", "decode"}),
        (32, "paper", set()),
    ]
    assert "32 frames, off: not measured: the prompt needs more" in notes(grid, found)


def filled(stock_ms: list[float], own_ms: list[float]) -> Grid:
    grid = Grid(["stock", "paper"], [8])
    for i, (a, b) in enumerate(zip(stock_ms, own_ms, strict=True)):
        extra = {"decode at 50": 3.0}
        grid.records.append(Record(i, 8, "stock", measured(a, decode=4.0, **extra)))
        grid.records.append(Record(i, 8, "paper", measured(b, decode=2.0, n_prompt=50, importance=b / 2)))
    return grid


def test_report_by_hand() -> None:
    grid = filled([999, 20, 60, 30], [1, 10, 20, 10])  # the first is the warm-up
    reference, paper = cells(grid)
    assert reference.ms["prefill"] == Spread(30, 20, 60, 3)
    assert paper.ratios["prefill"] == Spread(3, 2, 3, 3)
    assert paper.ratios["decode"] == Spread(2, 2, 2, 3)
    assert paper.ratios["decode at one length"] == Spread(1.5, 1.5, 1.5, 3)
    assert paper.prefill_tps.median == pytest.approx(50 / 0.010)
    assert paper.gflops.median == pytest.approx(2 / 0.005)  # 2 GFLOP in the half that is not scoring
    text = [" | ".join(row) for row in table([reference, paper], "stock")]
    assert any("prefill: stock / this" in line and "3.00 (2.00..3.00)" in line for line in text)


@pytest.mark.parametrize(("times", "is_busy"), [([100, 107, 93], False), ([100, 109, 92], True)])
def test_a_busy_machine_is_told(times: list[float], is_busy: bool) -> None:
    grid = filled([1, *times], [1, 1, 1, 1])
    assert any("busy" in note for note in notes(grid, cells(grid))) == is_busy


@pytest.mark.parametrize("text", ["", "8,", "8,x", "0", "8,8", "-1", "1.5"])
def test_bad_frames(text: str) -> None:
    with pytest.raises(UsageError, match="--frames"):
        parse_frames(text)
    assert parse_frames("8, 32") == [8, 32]
    assert parse_list("off,paper:keep=0.5", "--tokens") == ["off", "paper:keep=0.5"]


# --- both libraries --------------------------------------------------------------------------------------------------


def pair(shape: RandomShape, **options: Any) -> BenchResult:
    folder = Path(STOCK_LIB or LIB_FOLDER)
    config = BenchConfig(shape=shape, frames=(4,), rounds=2, n_decode=4, stock=True, stock_folder=folder, **options)
    return run_bench(config, silent)


def test_pair_with_the_unpatched_library(shape: RandomShape) -> None:
    result = pair(shape, settings=("off", "paper"))
    stock_cell, off, paper = result.cells
    assert result.grid.failures == {}
    assert off.counts == stock_cell.counts
    assert off.kv_bytes == stock_cell.kv_bytes
    assert off.flops == stock_cell.flops > paper.flops
    assert paper.counts["n_prompt"] < stock_cell.counts["n_prompt"]
    assert set(paper.ratios) == {"prefill", "prefill_cpu", "decode", "decode at one length"}
    for n in (0, 1):
        both = [r.measured.ms["prefill"] for r in result.grid.records if r.round == n + 1 and r.arm != "off"]
        assert paper.ratios["prefill"].low <= both[0] / both[1] <= paper.ratios["prefill"].high
    assert any("patched library" in note for note in result.notes) == (STOCK_LIB is None)


def test_no_libraries_in_the_folder(shape: RandomShape, tmp_path: Path) -> None:
    config = BenchConfig(shape=shape, frames=(4,), stock=True, stock_folder=tmp_path)
    with pytest.raises(NativeError, match="--stock FOLDER"):
        run_bench(config, silent)


def test_building_needs_the_checkout_and_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import aim_local

    monkeypatch.setattr(aim_local, "__path__", [str(tmp_path / "site-packages" / "aim_local")])
    with pytest.raises(NativeError, match="source checkout"):
        stock.find_stock(None, silent)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeError, match="needs cmake"):
        stock.build(tmp_path, tmp_path / "stock", silent)


def test_a_failed_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "CMakeLists.txt").write_text('message(FATAL_ERROR "Error: no source")\n')
    with pytest.raises(NativeError, match="building the unpatched library failed"):
        stock.build(tmp_path / "patches", tmp_path / "cache" / "stock", silent)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_worker_that_dies_is_told() -> None:
    code = "import sys; sys.stdin.readline(); print('out of patience', file=sys.stderr); sys.exit(3)"
    with Worker("the worker", [sys.executable, "-c", code]) as worker, pytest.raises(NativeError) as error:
        worker.ask(what="anything")
    assert str(error.value) == "the worker died with exit code 3: out of patience"


def test_a_setting_no_run_can_take_is_an_error() -> None:
    with pytest.raises(AimError, match="nothing could be measured"):
        run_bench(BenchConfig(frames=(9999,), video=None, skip_vision=True, rounds=1), silent)


def test_a_clip_too_short_is_told_first() -> None:
    clip = synthetic_clip(8)
    with pytest.raises(MediaError, match="120 frames, 121 are asked for"):
        run_bench(BenchConfig(frames=(8, 121), video=clip), silent)


# --- the command -----------------------------------------------------------------------------------------------------


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["bench", *args])


def test_command_json_holds_every_value() -> None:
    result = run("--frames", "2,4", "--tokens", "paper", "--rounds", "3", "--n-decode", "2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["machine"]["physical_cores"] > 0
    assert facts["reference"] == "off"  # added: a ratio needs it
    assert len(facts["raw"]) == 2 * 2 * (3 + 1)
    by_hand = [r["measured"]["ms"] for r in facts["raw"] if (r["n_frames"], r["arm"]) == (4, "paper") and r["round"]]
    other = [r["measured"]["ms"] for r in facts["raw"] if (r["n_frames"], r["arm"]) == (4, "off") and r["round"]]
    (cell,) = (c for c in facts["cells"] if (c["n_frames"], c["arm"]) == (4, "paper"))
    assert cell["ms"]["vision"]["median"] == median(ms["vision"] for ms in by_hand)
    pairs = [a["prefill"] / b["prefill"] for a, b in zip(other, by_hand, strict=True)]
    assert cell["ratios"]["prefill"] == {"median": median(pairs), "low": min(pairs), "high": max(pairs), "n": 3}


def test_command_table_and_progress() -> None:
    result = run("--frames", "2", "--rounds", "1", "--n-decode", "2")
    assert result.exit_code == 0, result.output
    assert "prefill: off / this" in result.stdout
    assert "warm-up: 2 frames, off" in result.stderr
    assert run("--frames", "2", "--rounds", "1", "--n-decode", "2", "-q").stderr == ""


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["demo", "--shape", "0.5b"], 2, "give one of them"),
        (["--shape", "0.5b", "--mmproj", "x.gguf"], 2, "leave --mmproj out"),
        (["--tokens", "paper,half"], 2, "half"),
        (["--tokens", "paper,paper"], 2, "twice"),
        (["--rounds", "0"], 2, "rounds is 0"),
        (["--n-decode", "0"], 2, "n_decode is 0"),
        (["--skip-vision", "--video", "clip.mp4"], 2, "leave --video out"),
        (["--shape", "0.5b", "--type", "q4_k_m", "--skip-vision"], 1, "q4_k_m"),
        (["--stock", "nowhere"], 1, "nowhere"),
        (["--video", "nowhere.mp4"], 1, "nowhere.mp4"),
        (["nosuchmodel"], 1, "nosuchmodel"),
    ],
)
def test_bad_options(args: list[str], code: int, told: str) -> None:
    result = run(*args, "-q")
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert told in line
