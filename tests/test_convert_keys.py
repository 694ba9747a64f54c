"""The keys of both files."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from checkpoints import Shape, write_json, write_llava, write_onevision  # noqa: E402
from convert_models import FAMILIES, keys, model_of, tensors  # noqa: E402

from aim_local.convert import convert  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted


def test_onevision_keys(converted: dict[str, Path]) -> None:
    found = keys(converted["llava_onevision"] / "mmproj.gguf")
    side = Shape().side
    want = {
        "general.architecture": "clip",
        "general.name": "tiny",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "llava_onevision",
        "clip.use_gelu": True,
        "clip.use_silu": False,
        "clip.vision.image_size": side,
        "clip.vision.patch_size": 4,
        "clip.vision.embedding_length": 32,
        "clip.vision.feed_forward_length": 80,
        "clip.vision.projection_dim": 64,
        "clip.vision.block_count": 2,
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": pytest.approx(1e-6),
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
        "clip.vision.mm_patch_merge_type": "spatial_unpad",
        "clip.vision.image_grid_pinpoints": [side * n for h in (1, 2, 3) for w in (1, 2, 3) for n in (w, h)],
        "aim.vision.max_tiles": 9,
        "aim.vision.resample": 3,
        "aim.video.resample": 3,
        "aim.video.n_frames": 8,
        "aim.preprocess": "onevision",
        "aim.image_token": "<image>",
        "aim.video_token": "<video>",
    }
    assert {k: found.get(k) for k in want} == want
    assert not any(n.startswith("v.post_ln") for n in tensors(converted["llava_onevision"] / "mmproj.gguf"))


def test_llava_keys(converted: dict[str, Path]) -> None:
    found = keys(converted["llava"] / "mmproj.gguf")
    side = Shape().side
    want = {
        "clip.projector_type": "mlp",
        "clip.use_gelu": False,
        "clip.use_silu": False,
        "clip.vision.block_count": 2,
        "clip.vision.feature_layer": [2],
        "aim.preprocess": "clip-center-crop",
        "aim.vision.shortest_edge": side,
        "aim.vision.do_center_crop": True,
        "aim.vision.do_pad": False,
        "aim.vision.resample": 3,
        "aim.video.n_frames": 32,
        "aim.image_token": "<image>",
    }
    assert {k: found.get(k) for k in want} == want
    assert "aim.video_token" not in found
    assert found["clip.vision.image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


def test_embedding_table_longer_than_the_tokenizer(converted: dict[str, Path]) -> None:
    for family in FAMILIES:
        found = keys(converted[family] / "model.gguf")
        n = model_of(family).config.text_config.vocab_size
        tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
        assert len(tokens) == len(kinds) == n
        assert tokens[-40:] == [f"[PAD{i}]" for i in range(n - 40, n)]
        assert kinds[-41:] == [3, *[5] * 40]  # the last added token is control, padding is unused


def test_embedding_table_longer_than_the_config_says(tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=model_of("llava"))
    config = json.loads((src / "config.json").read_text())
    rows = config["text_config"]["vocab_size"]
    config["text_config"]["vocab_size"] -= 30
    write_json(src / "config.json", config)
    assert keys(convert(src, tmp_path / "out").model)["llama.vocab_size"] == rows


def test_a_config_that_says_tied_beside_another_output_table(tmp_path: Path) -> None:
    src = write_onevision(tmp_path / "src", model=model_of("llava_onevision"))
    config = json.loads((src / "config.json").read_text())
    write_json(src / "config.json", {**config, "tie_word_embeddings": True})
    assert "output.weight" in tensors(convert(src, tmp_path / "out").model)
