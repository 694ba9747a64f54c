"""What tests of merging and pruning share: random checkpoints with media and a setting, converted in f32."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, llava_model, onevision_model, write_llava, write_onevision
from reference_hf import Reference as HfReference

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert

PROMPTS = {
    1: "<|im_start|>user <__media__>\nWhat happens?<|im_end|><|im_start|>assistant\n",
    2: "<|im_start|>user <__media__> and <__media__>\nWhat happens?<|im_end|><|im_start|>assistant\n",
}


@dataclasses.dataclass
class Case:
    kind: str
    shape: Shape
    media: list[np.ndarray]
    tokens: VisualTokenConfig
    n_ubatch: int


def draw(seed: int) -> Case:
    """A checkpoint, media and setting."""
    rng = np.random.default_rng(seed)
    kind = "llava" if seed % 4 == 3 else "onevision"
    n_layer = int(rng.integers(4, 9))
    kv = 4 if kind == "llava" else int(rng.choice([1, 2, 4]))
    shape = Shape(grid=int(rng.integers(5, 10)), n_text=n_layer, heads_kv=kv, tied=bool(rng.integers(2)), seed=seed)
    n_media = int(rng.integers(1, 3))
    size = (shape.side, shape.side, 3)
    frames = [int(rng.integers(1, 6)) for _ in range(n_media)]
    pictures = [rng.integers(0, 256, (n, *size) if kind == "onevision" else size, dtype=np.uint8) for n in frames]
    return Case(kind, shape, pictures, draw_tokens(rng, n_layer), int(rng.choice([16, 64, 512])))


def draw_tokens(rng: np.random.Generator, n_layer: int) -> VisualTokenConfig:
    retain = float(rng.choice([1.0, 0.7, 0.5, 0.3, 0.25]))
    if rng.integers(2):
        l1 = int(rng.integers(0, n_layer - 1))
        return VisualTokenConfig(merge_retain=retain, prune_layers=(l1, int(rng.integers(l1 + 1, n_layer + 1))))
    shares = np.sort(np.round(rng.uniform(0, 1, n_layer), 2))[::-1]
    shares[0] = 1.0
    return VisualTokenConfig(merge_retain=retain, prune_layers=None, retention=[float(s) for s in shares])


@dataclasses.dataclass
class Loaded:
    case: Case
    model: Any
    hf: HfReference
    llm: VisionLLM
    prompt: str


def load(folder: Path, case: Case, **config: Any) -> Loaded:
    make, write = (onevision_model, write_onevision) if case.kind == "onevision" else (llava_model, write_llava)
    model = make(case.shape)
    source = write(folder / "hf", case.shape, model=model)
    convert(source, folder / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))
    f32 = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1, "n_ubatch": case.n_ubatch}
    exact = {"vision_precision": "exact", "prefill_precision": "exact"}
    llm = VisionLLM.load(folder / "gguf", config=LoadConfig(**{**f32, **exact, **config}))
    return Loaded(case, model, HfReference(source, model), llm, PROMPTS[len(case.media)])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    shape = Shape(grid=8, n_text=6, heads=2, heads_kv=2, seed=77)
    media = [np.random.default_rng(7).integers(0, 256, (6, shape.side, shape.side, 3), dtype=np.uint8)]
    case = Case("onevision", shape, media, VisualTokenConfig(prune_layers=(2, 5), merge_retain=0.5), 512)
    found = load(tmp_path_factory.mktemp("pruning"), case)
    with found.llm:
        yield found
