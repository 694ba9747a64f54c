"""What tests of `bench` share: the smallest shape, and a random model of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from shared_folder import made_once

from aim_local.lab.bench.cache import bench_folder, synthetic_clip
from aim_local.lab.bench.session import Measured
from aim_local.lab.bench.shapes import RandomShape, parse_shape, write_text_gguf, write_vision_gguf
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


@pytest.fixture(autouse=True)
def clip_is_there(user_home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The synthetic clip takes seconds to draw: once in a run, and then it is in every test's cache."""
    made = made_once(tmp_path_factory, "bench", lambda folder: shutil.copy(synthetic_clip(8), folder))
    shutil.copytree(made, bench_folder(), dirs_exist_ok=True)


def measured(prefill: float, decode: float = 1.0, n_prompt: int = 100, **ms: float) -> Measured:
    return Measured(8, 100, 0, 0, n_prompt, 1 << 20, None, 2e9, {"prefill": prefill, "decode": decode, **ms})
