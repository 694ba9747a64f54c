"""Keys of a mmproj that its own tensors or its projector contradict: read by nobody, or by one part of two."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import pytest
from bent_gguf import array, number, text
from fuzz.targets.gguf import File

from aim_local.config import LoadConfig
from aim_local.errors import ModelError
from aim_local.models.base import TowerFile
from aim_local.models.text import TextModel

# 112 pixels in patches of 14, 3 layers of 128, rows of 160
V = "clip.vision."
Keys = Mapping[str, dict[str, int | bytes] | None]


@pytest.fixture(scope="module")
def text_model() -> TextModel:
    return TextModel(bent.FOLDER / "model.gguf", LoadConfig(n_threads=1), weights=False)


def bare(names: Mapping[str, tuple[int, ...]], keys: Keys) -> File:
    """A head of other tensors, whose numbers do not matter."""
    whole = bent.whole("mmproj")
    ours = [e for e in whole.entries if not e.key.startswith((b"aim.", b"clip.vision.image_grid", b"clip.vision.mm_"))]
    one = struct.pack("<f", 0.5)
    tensors = tuple(
        replace(whole.tensors[0], name=name.encode(), shape=shape, type=bent.F32, data=one * math.prod(shape))
        for name, shape in names.items()
    )
    return with_keys(replace(whole, entries=tuple(ours), tensors=tensors), keys)


def with_keys(file: File, keys: Keys) -> File:
    for key, value in keys.items():
        file = bent.with_key(file, key, value)
    return file


def refusal(file: File, path: Path, text_model: TextModel) -> str:
    with pytest.raises(ModelError) as caught:
        TowerFile.read(bent.save(file, path), text_model, weights=False)
    said = str(caught.value)
    print(said)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


REFUSED: list[tuple[Keys, str]] = [
    (
        {V + "projection_dim": number("uint32", 7)},
        "projection_dim is 7 (uint32); mm.2.weight makes visual tokens of",
    ),
    ({V + "projection_dim": number("uint32", 128)}, "projection_dim is 128 (uint32); mm.2.weight makes"),
    ({V + "projection_dim": number("uint32", 161)}, "projection_dim is 161 (uint32); mm.2.weight makes"),
    (
        {V + "image_size": number("uint32", 113)},
        "is (112, 112) (array of int32); it has to be multiples of clip.",
    ),
    ({V + "image_size": number("uint32", 125)}, "it has to be multiples of clip.vision.image_size, which is 125"),
    ({V + "image_grid_pinpoints": array("int32", 113, 111)}, "is (113, 111) (array of int32); it has to be multiples"),
    ({V + "image_grid_pinpoints": array("int32", 112, 224, 112, 168)}, "it has to be multiples of clip.vision.image_s"),
    ({V + "image_grid_pinpoints": array("int32", 56, 56)}, "it has to be multiples of clip.vision.image_size"),
    ({V + "spatial_merge_size": number("uint32", 3)}, "spatial_merge_size is 3 (uint32); towers with the projector"),
    ({V + "spatial_merge_size": number("uint32", 2)}, "towers with the projector 'llava_onevision' have no such value"),
    ({V + "n_wa_pattern": number("uint32", 0)}, "n_wa_pattern is 0 (uint32); towers with the projector"),
    ({V + "wa_layer_indexes": array("int32", 1, 2)}, "wa_layer_indexes is (1, 2) (array of int32); towers with"),
    ({V + "feature_layer": array("int32", 1)}, "feature_layer is (1,) (array of int32); towers with the projector"),
    ({V + "projector.scale_factor": number("uint32", 2)}, "projector.scale_factor is 2 (uint32); towers with"),
    ({V + "window_size": number("uint32", 112)}, "window_size is 112 (uint32); towers with the projector"),
    ({V + "is_deepstack_layers": array("bool", 1, 0, 0)}, "there are tensors v.deepstack.* of the layers none"),
    ({"aim.preprocess": text("anyres")}, "with the projector 'llava_onevision' it has to be 'onevision'"),
    ({"clip.projector_type": text("mlp")}, "is 'onevision' (text); with the projector 'mlp' it has to be 'anyres' or"),
    ({"aim.preprocess": text("frog")}, "aim.preprocess is 'frog' (text); with the projector"),
    ({"aim.frog": number("uint32", 1)}, "knows no such key. Update aim-local, or convert the model again"),
    ({"aim.frog": text("x")}, "aim.frog is 'x' (text); this version of aim-local knows no such key."),
    ({"aim.vision.frog": array("int32", 1)}, "aim.vision.frog is (1,) (array of int32); this version of aim-local"),
]


@pytest.mark.parametrize(("keys", "said"), REFUSED, ids=[said[:50] for _, said in REFUSED])
def test_keys_that_the_file_contradicts(keys: Keys, said: str, tmp_path: Path, text_model: TextModel) -> None:
    found = refusal(with_keys(bent.whole("mmproj"), keys), tmp_path / "mmproj.gguf", text_model)
    assert said in found
    assert found.count("again") == 1


CLIP = {"v.patch_embd.weight": (14, 14, 3, 128), "v.position_embd.weight": (128, 65), "v.pre_ln.weight": (128,)}
QWEN = {"mm.0.weight": (512, 512), "mm.2.weight": (512, 160)}
OF_OTHERS: list[tuple[str, Mapping[str, tuple[int, ...]], Keys, str]] = [
    ("mlp", CLIP, {V + "feature_layer": array("int32", 1)}, "the last of them has to be the tower's last layer, 3"),
    ("mlp", CLIP, {V + "feature_layer": array("int32", 0, 2)}, "the last of them has to be the tower's last layer, 3"),
    ("mlp", CLIP, {V + "feature_layer": array("int32", -1)}, "the last of them has to be the tower's last layer, 3"),
    ("mlp", CLIP, {V + "image_grid_pinpoints": array("int32", 112, 224, 100, 112)}, "it has to be multiples of clip."),
    ("qwen2vl_merger", QWEN, {V + "projection_dim": number("uint32", 7)}, "is 7 (uint32); mm.2.weight makes visual t"),
    ("qwen2vl_merger", QWEN, {V + "image_grid_pinpoints": array("int32", 112, 112)}, "have no such value"),
    ("qwen2vl_merger", QWEN, {V + "projector.scale_factor": number("uint32", 2)}, "have no such value"),
    ("idefics3", {"mm.model.fc.weight": (2048, 160)}, {V + "projection_dim": number("uint32", 64)}, "mm.model.fc.wei"),
    ("gemma3", {"mm.input_projection.weight": (160, 128)}, {V + "projection_dim": number("uint32", 128)}, "of 160 val"),
    (
        "qwen3vl_merger",
        {**QWEN, "v.deepstack.1.fc1.weight": (512, 512)},
        {V + "is_deepstack_layers": array("bool", 1, 0, 0)},
        "there are tensors v.deepstack.* of the layers [1]",
    ),
    ("qwen3vl_merger", QWEN, {V + "is_deepstack_layers": array("bool", 0, 1)}, "of the layers none"),
]


@pytest.mark.parametrize(
    ("projector", "tensors", "keys", "said"), OF_OTHERS, ids=[f"{p} {s[:40]}" for p, _, _, s in OF_OTHERS]
)
def test_keys_that_other_towers_contradict(
    projector: str,
    tensors: Mapping[str, tuple[int, ...]],
    keys: Keys,
    said: str,
    tmp_path: Path,
    text_model: TextModel,
) -> None:
    biased = {"v.patch_embd.weight": (14, 14, 3, 128), "v.patch_embd.bias": (128,)}
    more = {"clip.projector_type": text(projector), V + "projector.scale_factor": number("uint32", 4)}
    if projector not in ("idefics3", "gemma3"):
        del more[V + "projector.scale_factor"]
    file = bare({**biased, **tensors}, {**more, **keys})
    assert said in refusal(file, tmp_path / "mmproj.gguf", text_model)


def siglip_384(file: File) -> File:
    """As SigLIP-so400m of LLaVA-OneVision: 27 patches of 14 pixels, and 6 pixels that nobody sees."""
    keys = {V + "image_size": number("uint32", 118), V + "image_grid_pinpoints": array("int32", 118, 236)}
    return with_keys(file, keys)


WORKS: dict[str, Callable[[File], File]] = {
    "a square that is no multiple of SigLIP's patches": siglip_384,
    "no width, as upstream's script writes for SigLIP": lambda f: bent.with_key(
        f, V + "projection_dim", number("uint32", 0)
    ),
    "no layouts": lambda f: bent.with_key(f, V + "image_grid_pinpoints", None),
    "a key of somebody's": lambda f: bent.with_key(f, V + "image_crop_resolution", number("uint32", 224)),
}


@pytest.mark.parametrize("name", WORKS)
def test_what_real_files_have(name: str, tmp_path: Path, text_model: TextModel) -> None:
    TowerFile.read(bent.save(WORKS[name](bent.whole("mmproj")), tmp_path / "mmproj.gguf"), text_model, weights=False)
