"""Tensor names: every scheme found in the wild gives the same files."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from checkpoints import SCHEMES, state_of, write_llava, write_tower  # noqa: E402
from convert_models import FAMILIES, WRITE, content, model_of  # noqa: E402

from aim_local.convert import ConvertConfig, convert  # noqa: E402
from aim_local.convert.names import sanitize  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_naming_scheme_gives_the_same_files(
    family: str, scheme: str, converted: dict[str, Path], tmp_path: Path
) -> None:
    src = WRITE[family](tmp_path / "src", scheme=scheme, model=model_of(family), shards=2)
    tower = None
    if scheme == "original":
        tower = write_tower(tmp_path / "tower", model=model_of(family), kind="clip" if family == "llava" else "siglip")
    config = ConvertConfig("f32", "f32", vision_tower=tower, name="tiny")
    result = convert(src, tmp_path / "out", config)
    assert content(result.folder) == content(converted[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_todays_scheme_is_what_transformers_saves(family: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    model_of(family).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(state_of(model_of(family), "today"))


def test_pytorch_shards_are_read_too(converted: dict[str, Path], tmp_path: Path) -> None:
    """The original LLaVA-1.5 files are pickles."""
    src = write_llava(tmp_path / "src", scheme="original", model=model_of("llava"), shards=3, torch_file=True)
    tower = write_tower(tmp_path / "tower", model=model_of("llava"))
    result = convert(src, tmp_path / "out", ConvertConfig("f32", "f32", vision_tower=tower, name="tiny"))
    assert content(result.folder) == content(converted["llava"])


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.language_model.norm.weight", "text.norm.weight"),
        ("model.norm.weight", "text.norm.weight"),
        ("language_model.lm_head.weight", "text.lm_head.weight"),
        ("model.vision_tower.vision_tower.vision_model.post_layernorm.bias", "vision.post_layernorm.bias"),
        ("model.mm_projector.2.bias", "projector.2.bias"),
        ("multi_modal_projector.linear_1.weight", "projector.0.weight"),
        ("model.image_newline", "newline"),
        ("model.faster_token", "model.faster_token"),
    ],
)
def test_sanitize(name: str, ours: str) -> None:
    assert sanitize(name) == ours
