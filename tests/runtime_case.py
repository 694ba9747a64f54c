"""What tests of the runtime share: a tiny checkpoint, the model converted from it, clips of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, write_onevision

from aim_local import LoadConfig, VisionLLM
from aim_local.convert import ConvertConfig, convert
from aim_local.errors import AimError

EXACT = {"vision_precision": "exact", "prefill_precision": "exact"}
F32 = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1, **EXACT)
SHAPE = Shape(grid=6, n_text=3, heads=2, heads_kv=2, seed=11)  # trained for 1024 tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onevision(tmp_path_factory.mktemp("ov") / "hf", SHAPE)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    convert(checkpoint, checkpoint.parent / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    return checkpoint.parent / "gguf"


@pytest.fixture(scope="module")
def llm(model: Path) -> Any:
    with VisionLLM.load(model, config=F32) as loaded:
        yield loaded


def video(n_frames: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, SHAPE.side, SHAPE.side, 3), dtype=np.uint8)


def one_line(error: pytest.ExceptionInfo[AimError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 20
    return text
