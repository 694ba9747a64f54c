"""Both libraries get the same work; the command.

AIM_STOCK_LIB names a folder with the unpatched libraries; without it our own stand in for them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import bench_case
import numpy as np
import pytest
from bench_case import STOCK_LIB, silent
from typer.testing import CliRunner

from aim_local import LoadConfig
from aim_local.cli import app
from aim_local.engine.model import Model
from aim_local.errors import AimError, MediaError, NativeError, UsageError
from aim_local.lab.bench import stock
from aim_local.lab.bench.benchmark import BenchConfig, BenchResult, run_bench
from aim_local.lab.bench.cache import bench_folder, synthetic_clip
from aim_local.lab.bench.shapes import RandomShape
from aim_local.lab.bench.stock_tower import stock_mmproj
from aim_local.models.tiles import TileTower
from aim_local.native.installed import bindings_folder
from aim_local.native.library import LIB_FOLDER
from aim_local.store.names import ModelPaths

shape = bench_case.shape
paths = bench_case.paths
clip_is_there = bench_case.clip_is_there


# --- both libraries --------------------------------------------------------------------------------------------------


def pair(shape: RandomShape, **options: Any) -> BenchResult:
    folder = Path(STOCK_LIB or LIB_FOLDER)
    config = BenchConfig(shape=shape, frames=(4,), rounds=2, n_decode=4, stock=True, stock_folder=folder, **options)
    return run_bench(config, silent)


def test_pair_with_the_unpatched_library(shape: RandomShape) -> None:
    result = pair(shape, settings=("off", "paper"), skip_vision=True)
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


@pytest.mark.thorough
def test_pair_from_the_clip_to_the_first_token(shape: RandomShape) -> None:
    result = pair(shape, settings=("off", "paper"))
    stock_cell, off, paper = result.cells
    assert result.grid.failures == {}
    assert off.counts == stock_cell.counts
    assert {"vision", "first_token", "prefill"} <= set(paper.ratios) & set(off.ratios)
    for record in result.grid.records:
        ms = record.measured.ms
        parts = sum(ms.get(stage, 0) for stage in ("decode_video", "preprocess", "vision", "merge", "prefill"))
        assert all(ms[stage] > 0 for stage in ("decode_video", "preprocess", "vision", "prefill"))
        assert parts <= ms["first_token"] * 1.0001
    assert list(bench_folder().glob(".pair-*")) == [], "what went from side to side is gone"


def test_the_unpatched_library_runs_the_same_tower(paths: ModelPaths, tmp_path: Path) -> None:
    """Its rows of a tile against ours, of a file that it cannot read as it is."""
    assert paths.mmproj is not None
    tile = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    with closing(Model.open(paths, LoadConfig(flash_attn=True, vision_precision="exact"))) as model:
        assert isinstance(model.tower, TileTower)
        ours = model.tower.encoder.encode(tile)
        mmproj = stock_mmproj(model.tower, paths.mmproj, tmp_path)
    np.save(tmp_path / "tile.npy", tile)
    code = """
import sys
import numpy as np
from aim_local.native.stock import StockLibrary, StockOptions
model, mmproj, tile, out = sys.argv[1:]
loaded = StockLibrary().load(model, StockOptions(1, 0, 1, 1, 2048, 512))
np.save(out, loaded.tower(mmproj).encode(np.load(tile), loaded.n_embd)[0])
"""
    folder = str(STOCK_LIB or LIB_FOLDER)
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": folder, "MTMD_CPP_LIB": folder}
    env["PYTHONPATH"] = os.pathsep.join([str(bindings_folder()), *filter(None, sys.path)])
    files = [str(paths.model), str(mmproj), str(tmp_path / "tile.npy"), str(tmp_path / "rows.npy")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, env=env)
    theirs = np.load(tmp_path / "rows.npy")
    error = np.abs(theirs - ours).max() / np.abs(ours).max()
    print(f"largest difference: {error:.1e} of the largest")
    assert error < 2e-3  # it computes pixels and the projector's gelu in 16 bits


def test_whole_pictures_cannot_be_paired(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="skip_vision=True"):
        stock_mmproj(None, tmp_path / "mmproj.gguf", tmp_path)


def test_no_libraries_in_the_folder(shape: RandomShape, tmp_path: Path) -> None:
    config = BenchConfig(shape=shape, frames=(4,), stock=True, stock_folder=tmp_path)
    with pytest.raises(NativeError, match="stock_folder=FOLDER"):
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


def test_the_stock_side_loads_nothing_of_ours() -> None:
    code = "import sys\nfrom aim_local.lab.bench.stock_side import Side\nSide()\n"
    code += "print('aim_local.native.library' in sys.modules)"
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": str(LIB_FOLDER), "MTMD_CPP_LIB": str(LIB_FOLDER)}
    env["PYTHONPATH"] = os.pathsep.join([str(bindings_folder()), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "False"


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


def test_command_markdown() -> None:
    result = run("--frames", "2", "--rounds", "1", "--n-decode", "2", "--tokens", "paper", "--markdown", "-q")
    assert result.exit_code == 0, result.output
    table = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert table[:2] == ["| 2 frames, ms | off | paper |", "|---|---|---|"]
    assert {line.count("|") for line in table} == {4}


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
        (["--warm-up", "-1"], 2, "--warm-up is -1"),
        (["--n-decode", "0"], 2, "--n-decode is 0"),
        (["--skip-vision", "--video", "clip.mp4"], 2, "leave --video out"),
        (["--shape", "0.5b", "--type", "q4_k_m", "--skip-vision"], 1, "q4_k_m"),
        (["--markdown", "--json"], 2, "give one of them"),
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
