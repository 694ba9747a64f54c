"""Reading of config.json: sparse ones, the published ones, both layouts."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from aim_local.convert.checkpoint import Checkpoint  # noqa: E402
from aim_local.convert.families import read_model  # noqa: E402
from aim_local.convert.families.llava_onevision import read_pinpoints  # noqa: E402
from aim_local.convert.text import ROPE_THETA, TEXT_DEFAULTS  # noqa: E402
from aim_local.convert.vision_towers import CLIP, KNOWN_TOWERS, SIGLIP  # noqa: E402


def test_sparse_config_gets_the_class_defaults() -> None:
    """llava-hf/llava-1.5-7b-hf's config.json leaves out whatever is LLaMA's default."""
    from transformers import CLIPVisionConfig, LlamaConfig, Qwen2Config, SiglipVisionConfig

    pairs = [
        (TEXT_DEFAULTS["qwen2"], Qwen2Config),
        (TEXT_DEFAULTS["llama"], LlamaConfig),
        (SIGLIP.defaults, SiglipVisionConfig),
        (CLIP.defaults, CLIPVisionConfig),
    ]
    for ours, config in pairs:
        theirs = config().to_dict()
        # LLaMA's None means "as many as attention heads"
        ours = {k: theirs["num_attention_heads"] if v is None else v for k, v in ours.items()}
        assert {k: theirs[k] for k in ours} == ours
    assert Qwen2Config().rope_parameters["rope_theta"] == ROPE_THETA


QWEN2_05B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
}
ONEVISION_05B_ORIGINAL = QWEN2_05B | {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava",
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": "(1x1),...,(6x6)",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
}
ONEVISION_05B = {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "text_config": QWEN2_05B | {"model_type": "qwen2", "vocab_size": 152000},
    "tie_word_embeddings": False,
    "vision_config": KNOWN_TOWERS["siglip-so400m-patch14-384"] | {"num_hidden_layers": 26},
    "vision_feature_layer": -1,
}
LLAVA_7B = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "vocab_size": 32064},
    "vision_config": KNOWN_TOWERS["clip-vit-large-patch14-336"] | {"projection_dim": 768},
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


@pytest.mark.parametrize(
    ("config", "layers", "patches", "head_dim", "tied", "tiles"),
    [
        (ONEVISION_05B, (24, 26), 729, 64, True, 36),
        (ONEVISION_05B_ORIGINAL, (24, 26), 729, 64, True, 36),
        (LLAVA_7B, (32, 23), 576, 128, False, 0),
    ],
)
def test_the_published_configs(
    config: dict[str, Any], layers: tuple[int, int], patches: int, head_dim: int, tied: bool, tiles: int, tmp_path: Path
) -> None:
    """What the published checkpoints say of themselves, sparse as they are."""
    spec = read_model(Checkpoint(tmp_path, config, {}), None)
    assert (spec.text.n_layer, spec.vision.n_layer) == layers
    assert (spec.vision.n_patches, spec.text.head_dim, spec.text.tied) == (patches, head_dim, tied)
    assert len(getattr(spec, "pinpoints", ())) == tiles
    assert spec.preprocess.n_frames == 32
    assert spec.preprocess.mean == spec.vision.kind.mean


@pytest.mark.parametrize("listed", ["(1x1),...,(3x3)", [[24 * w, 24 * h] for w in (1, 2, 3) for h in (1, 2, 3)]])
def test_pinpoints_of_the_original_code_are_width_first(listed: Any) -> None:
    got = read_pinpoints({"mm_vision_tower": "somebody/siglip-tiny", "image_grid_pinpoints": listed}, 24)
    assert got[:4] == ((24, 24), (48, 24), (72, 24), (24, 48))
    assert len(got) == 9
