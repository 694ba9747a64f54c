"""Tensors that a family never has, or always: one too many or too few changed rows without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import pytest

from aim_local.config import LoadConfig
from aim_local.errors import ModelError
from aim_local.models.base import TowerFile
from aim_local.models.text import TextModel
from aim_local.models.tower_tensors import check_tower_tensors
from aim_local.store.gguf_header import GgufHeader, TensorInfo

LAYER = [f"{part}.{end}" for part in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down", "ln1", "ln2")
         for end in ("weight", "bias")]  # fmt: skip
POST_NORM, BIASED_PATCHES = ["v.post_ln.weight", "v.post_ln.bias"], ["v.patch_embd.weight", "v.patch_embd.bias"]
MLP = [f"mm.{i}.{end}" for i in (0, 2) for end in ("weight", "bias")]
CLIP = ["v.patch_embd.weight", "v.position_embd.weight", "v.class_embd", "v.pre_ln.weight", "v.pre_ln.bias", *MLP]
# what files of upstream's converter, and of ours, hold: beside layers, and in each
HELD = {
    "mlp": (CLIP, LAYER),
    "idefics3": ([*BIASED_PATCHES, "v.position_embd.weight", *POST_NORM, "mm.model.fc.weight"], LAYER),
    "qwen2.5vl_merger": (
        ["v.patch_embd.weight", "v.patch_embd.weight.1", "v.post_ln.weight", *MLP],
        ["ffn_gate.weight", "ffn_gate.bias", *(name for name in LAYER if name not in ("ln1.bias", "ln2.bias"))],
    ),
    "internvl": (
        [*BIASED_PATCHES, "v.position_embd.weight", "v.class_embd"]
        + [f"mm.model.mlp.{i}.{end}" for i in (0, 1, 3) for end in ("weight", "bias")],
        [*LAYER, "ls1.weight", "ls2.weight"],
    ),
    "gemma4v": (
        ["v.patch_embd.weight", "v.position_embd.weight", "mm.input_projection.weight", "v.std_bias", "v.std_scale"],
        [f"{part}.weight" for part in ("ffn_gate", "attn_q_norm", "attn_k_norm", "attn_post_norm", "ffn_post_norm")]
        + [name for name in LAYER if name.endswith("weight")],
    ),
}


def head(projector: str, n_layer: int = 2) -> GgufHeader:
    beside, layer = HELD[projector]
    names = [*beside, *(f"v.blk.{i}.{name}" for i in range(n_layer) for name in layer)]
    tensors = tuple(TensorInfo(name, (8,), bent.F32, 0) for name in names)
    return GgufHeader(Path("mmproj.gguf"), 3, {"clip.projector_type": projector}, tensors, 0, 0)


@pytest.mark.parametrize("projector", HELD)
def test_what_a_family_has(projector: str) -> None:
    check_tower_tensors(head(projector))


@pytest.mark.parametrize(
    ("projector", "name"),
    [
        ("mlp", "v.post_ln.weight"),
        ("mlp", "v.patch_embd.bias"),
        ("idefics3", "v.blk.1.attn_q_norm.weight"),
        ("idefics3", "v.class_embd"),
        ("idefics3", "mm.model.fc.bias"),
        ("qwen2.5vl_merger", "v.patch_embd.bias"),
        ("qwen2.5vl_merger", "v.deepstack.1.fc1.weight"),
        ("internvl", "v.post_ln.weight"),
        ("gemma4v", "v.blk.0.out_scale.weight"),
        ("gemma4v", "v.norm_embd.weight"),
    ],
)
def test_what_a_family_never_has(projector: str, name: str) -> None:
    found = head(projector)
    more = replace(found, tensors=(*found.tensors, TensorInfo(name, (8,), bent.F32, 0)))
    with pytest.raises(ModelError, match=f"the tensor '{name}' is none that towers with the projector '{projector}'"):
        check_tower_tensors(more)


@pytest.mark.parametrize(
    ("projector", "name"),
    [
        ("mlp", "v.class_embd"),
        ("mlp", "v.pre_ln.bias"),
        ("idefics3", "v.post_ln.weight"),
        ("qwen2.5vl_merger", "v.patch_embd.weight.1"),
        ("internvl", "v.blk.*.ls1.weight"),
        ("gemma4v", "v.blk.*.attn_q_norm.weight"),
        ("gemma4v", "v.std_bias"),
    ],
)
def test_what_it_always_has(projector: str, name: str) -> None:
    """Of a layer: in none of them. Where only some have it, head.py says so."""
    found = head(projector)
    gone = {name.replace("*", str(i)) for i in range(2)}
    less = replace(found, tensors=tuple(tensor for tensor in found.tensors if tensor.name not in gone))
    said = name.replace("*", "0")
    with pytest.raises(ModelError, match=f"the tensor '{said}' is missing, and towers with the projector"):
        check_tower_tensors(less)


def test_a_projector_that_nobody_here_knows_is_left_to_the_loader() -> None:
    found = head("mlp")
    check_tower_tensors(replace(found, metadata={"clip.projector_type": "resampler"}))


@pytest.mark.parametrize("name", ["v.post_ln.weight", "v.class_embd", "v.pre_ln.weight", "v.norm_embd.weight"])
def test_a_tower_with_one_more_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    """clip.cpp takes each of these from any tower, and computes with some."""
    file = bent.whole("mmproj")
    row = bent.as_numbers((128,))(file.tensors[0])
    more = replace(file, tensors=(*file.tensors, replace(row, name=name.encode())))
    path = bent.save(more, tmp_path / "mmproj.gguf")
    text = TextModel(bent.FOLDER / "model.gguf", LoadConfig(n_threads=1), weights=False)
    with pytest.raises(ModelError, match=f"the tensor '{name}' is none that towers with the projector"):
        TowerFile.read(path, text, weights=False)
