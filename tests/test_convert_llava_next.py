"""Conversion of LLaVA-NeXT: which checkpoints are of the family, both layouts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, original_llava_config, write_json, write_tower  # noqa: E402
from convert_models import keys, tensors  # noqa: E402
from llava_next_case import CELLS, KINDS, make_model, write  # noqa: E402

from aim_local.convert import ConvertConfig, ConvertError, convert  # noqa: E402
from aim_local.convert.checkpoint import Checkpoint  # noqa: E402
from aim_local.convert.families import family_of, read_model  # noqa: E402
from aim_local.convert.families.llava_next import MISTRAL_DEFAULTS  # noqa: E402
from aim_local.convert.vision_towers import KNOWN_TOWERS  # noqa: E402

SHAPE = Shape(grid=4, heads_kv=2, seed=51)
F32 = ConvertConfig("f32", "f32", name="tiny")
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
VISION = KNOWN_TOWERS["clip-vit-large-patch14-336"] | {"projection_dim": 768, "vocab_size": 32000}
MISTRAL = {  # as llava-hf/llava-v1.6-mistral-7b-hf has it
    "architectures": ["LlavaNextForConditionalGeneration"],
    "image_grid_pinpoints": PINPOINTS,
    "model_type": "llava_next",
    "text_config": {
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "vocab_size": 32064,
    },
    "vision_config": VISION,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
VIDEO = {
    "architectures": ["LlavaNextVideoForConditionalGeneration"],
    "model_type": "llava_next_video",
    "image_grid_pinpoints": PINPOINTS,
    "spatial_pool_mode": "average",
    "spatial_pool_stride": 2,
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": 32064},
    "vision_config": VISION,
}
VICUNA = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": PINPOINTS,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "rms_norm_eps": 1e-05,
}


def read(config: dict[str, Any], folder: Path) -> Any:
    return read_model(Checkpoint(folder, config, {}), None)


@pytest.mark.parametrize(
    ("config", "heads_kv", "theta", "template", "video", "stride"),
    [
        (MISTRAL, 8, 1e6, "[INST] ", None, 0),
        (VIDEO, 32, 1e4, "USER: ", "<video>", 2),
        (VICUNA, 32, 1e4, "USER: ", None, 0),
    ],
    ids=["mistral", "video", "vicuna"],
)
def test_the_published_configs(
    config: dict[str, Any], heads_kv: int, theta: float, template: str, video: str | None, stride: int, tmp_path: Path
) -> None:
    found = read(config, tmp_path)
    assert (found.name, found.projector, found.text.arch) == ("llava_next", "mlp", "llama")
    assert (found.text.n_layer, found.text.n_head_kv, found.text.rope.theta) == (32, heads_kv, theta)
    assert (found.vision.n_layer, found.vision.n_patches, len(found.pinpoints)) == (23, 576, 5)
    assert (found.video_token, found.stride) == (video, stride)
    assert template in found.chat_template
    first = (672, 336) if config is VICUNA else (336, 672)  # height, width
    assert found.pinpoints[0] == first


def test_mistrals_defaults_are_transformers() -> None:
    from transformers import MistralConfig

    theirs = MistralConfig().to_dict()
    assert {key: theirs[key] for key in MISTRAL_DEFAULTS} == MISTRAL_DEFAULTS


def test_near_relatives_are_not_taken_for_it() -> None:
    plain = {key: value for key, value in VICUNA.items() if key != "mm_patch_merge_type"}
    assert family_of(plain).name == "llava"
    assert family_of({"architectures": ["LlavaForConditionalGeneration"], "text_config": {}}).name == "llava"
    assert family_of({**VICUNA, "architectures": ["LlavaQwenForCausalLM"]}).name == "llava_onevision"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({**MISTRAL, "text_config": {**MISTRAL["text_config"], "sliding_window": 4096}}, "sliding window of 4096"),
        ({**MISTRAL, "text_config": {**MISTRAL["text_config"], "model_type": "qwen2"}}, "a qwen2 language tower"),
        ({**VIDEO, "spatial_pool_mode": "max"}, "spatial_pool_mode 'max'"),
        ({**VICUNA, "image_aspect_ratio": "pad"}, "pictures 'pad'"),
        ({**MISTRAL, "image_grid_pinpoints": [[336, 500]]}, "no multiples of the tower's 336 pixels"),
        ({**MISTRAL, "image_grid_pinpoints": "(1x1)"}, "no list of pairs"),
        ({**MISTRAL, "vision_feature_select_strategy": "full"}, "feature selection 'full'"),
    ],
)
def test_what_is_refused(config: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=told) as e:
        read(config, tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_tensors(kind: str, tmp_path: Path) -> None:
    found = convert(write(tmp_path / "hf", SHAPE, make_model(SHAPE, kind)), tmp_path / "gguf", F32)
    side, have = SHAPE.side, keys(found.mmproj)
    want = {
        "clip.projector_type": "mlp",
        "clip.vision.feature_layer": [SHAPE.n_vision],
        "clip.vision.image_grid_pinpoints": [side * n for h, w in CELLS for n in (w, h)],
        "clip.vision.mm_patch_merge_type": "spatial_unpad",
        "aim.family": "llava_next",
        "aim.preprocess": "anyres",
        "aim.vision.shortest_edge": side,
        "aim.video.pool": "average" if kind == "video" else None,
        "aim.video.pool_stride": 2 if kind == "video" else None,
        "aim.video_token": "<video>" if kind == "video" else None,
    }
    assert {key: have.get(key) for key in want} == want
    assert "v.image_newline" in tensors(found.mmproj)
    assert keys(found.model)["general.architecture"] == "llama"


def test_the_authors_layout_gives_the_same_tower(tmp_path: Path) -> None:
    """Pinpoints are width first there, and the tower is described in a folder of its own."""
    model = make_model(SHAPE, "llama")
    ours = convert(write(tmp_path / "hf", SHAPE, model), tmp_path / "ours", F32)
    source = write(tmp_path / "original", SHAPE, model, "original")
    config = json.loads((source / "config.json").read_text())
    tiles = {
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": [[w, h] for h, w in config["image_grid_pinpoints"]],
        "mm_patch_merge_type": "spatial_unpad",
        "mm_vision_tower": "somebody/clip-tiny",
    }
    write_json(source / "config.json", {**original_llava_config(config), **tiles})
    tower = write_tower(tmp_path / "tower", SHAPE, model)
    theirs = convert(source, tmp_path / "theirs", ConvertConfig("f32", "f32", vision_tower=tower, name="tiny"))
    for pair in ((theirs.mmproj, ours.mmproj), (theirs.model, ours.model)):
        found, wanted = map(keys, pair)
        assert {key for key in found | wanted if found.get(key) != wanted.get(key)} == {"aim.origin"}
        same = [{n: t.data.tobytes() for n, t in tensors(path).items()} for path in pair]
        assert same[0] == same[1]
