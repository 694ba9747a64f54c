"""Bad checkpoints and options: one clear line, and nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from checkpoints import (  # noqa: E402
    Shape,
    onevision_model,
    state_of,
    write_json,
    write_llava,
    write_onevision,
    write_weights,
)
from convert_models import model_of  # noqa: E402

from aim_local.convert import ConvertConfig, ConvertError, convert  # noqa: E402

folders = convert_models.folders


def edit_config(src: Path, **changes: Any) -> None:
    write_json(src / "config.json", {**json.loads((src / "config.json").read_text()), **changes})


def drop_tensors(src: Path, part: str) -> None:
    state = {k: v for k, v in state_of(model_of("llava_onevision"), "today").items() if part not in k}
    write_weights(src, state, 1, torch.float32)


def cut_short(src: Path) -> None:
    path = src / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def shard_and_lose_one(src: Path) -> None:
    (src / "model.safetensors").unlink()
    write_weights(src, state_of(model_of("llava_onevision"), "today"), 3, torch.float32)
    (src / "model-00002-of-00003.safetensors").unlink()


def resize(src: Path) -> None:
    state = state_of(model_of("llava_onevision"), "today")
    for il in range(2):
        name = f"language_model.model.layers.{il}.mlp.up_proj.weight"
        state[name] = state[name][:-1].contiguous()
    write_weights(src, state, 1, torch.float32)


def add_tensor(src: Path) -> None:
    write_weights(
        src, state_of(model_of("llava_onevision"), "today") | {"model.faster_token": torch.ones(4)}, 1, torch.float32
    )


def pack(src: Path) -> None:
    from safetensors.torch import save_file

    state = state_of(model_of("llava_onevision"), "today")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    save_file(state | {name: state[name].to(torch.int8)}, src / "model.safetensors")


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda s: (s / "config.json").unlink(), "is not a checkpoint folder: it has no config.json"),
    "broken config": (lambda s: (s / "config.json").write_text("{"), r"config\.json cannot be read as JSON"),
    "no weights": (
        lambda s: (s / "model.safetensors").unlink(),
        "has a config.json but no weights; expected one of",
    ),
    "no shard": (shard_and_lose_one, r"lacks 1 of 3 weight shards \(model-00002-of-00003\.safetensors\)"),
    "cut short": (lambda s: cut_short(s), r"is cut short \(\d+ of \d+ bytes\); download it again"),
    "LFS pointer": (
        lambda s: (s / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "not a safetensors file",
    ),
    "missing": (
        lambda s: drop_tensors(s, "down_proj"),
        r"lacks 3 of 39 tensors \(text\.layers\.0\.mlp\.down_proj",
    ),
    "no newline": (lambda s: drop_tensors(s, "newline"), r"lacks 1 of 40 tensors \(newline\)"),
    "no tower": (lambda s: drop_tensors(s, "vision_tower"), "does not carry its vision tower.*vision_tower$"),
    "misshapen": (
        resize,
        r"2 tensors have another shape than config\.json says \(.*up_proj\.weight is \[127, 64\], not \[128",
    ),
    "unknown tensor": (add_tensor, r"1 tensors that a llava_onevision model does not know \(model\.faster_token\)"),
    "packed": (pack, r"1 tensors are not plain numbers \(.* is I8\).*convert the unquantised checkpoint"),
    "architecture": (
        lambda s: edit_config(s, architectures=["Qwen2AudioForConditionalGeneration"]),
        "architecture Qwen2AudioForConditionalGeneration is not supported; supported are .*LLaVA-OneVision",
    ),
    "language tower": (
        lambda s: edit_config(s, text_config={"model_type": "gemma2"}),
        "llava_onevision with a gemma2 language tower is not supported",
    ),
    "several layers": (lambda s: edit_config(s, vision_feature_layer=[-2, -1]), "several vision layers"),
    "layer": (lambda s: edit_config(s, vision_feature_layer=-7), "selects vision layer -7 of a tower with 2 layers"),
    "no tokenizer": (lambda s: (s / "tokenizer.json").unlink(), "has no tokenizer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_checkpoint_is_one_clear_line(fault: str, folders: dict[str, Path], tmp_path: Path) -> None:
    src = tmp_path / "src"
    shutil.copytree(folders["llava_onevision"], src)
    damage, line = FAULTS[fault]
    damage(src)
    with pytest.raises(ConvertError, match=line) as caught:
        convert(src, tmp_path / "deep" / "out")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_sources_that_are_no_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"does not exist here; .*`aim-local pull llava-hf/llava-1.5-7b-hf` fetches"):
        convert("llava-hf/llava-1.5-7b-hf", tmp_path / "out")
    with pytest.raises(ConvertError, match="is a file; a checkpoint is a folder"):
        convert(folders["llava"] / "model.safetensors", tmp_path / "out")


def test_original_llava_without_its_tower_says_so(tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", scheme="original", model=model_of("llava"))
    line = r"does not carry its vision tower \(openai/clip-vit-large-patch14-336\); download that .*vision_tower"
    with pytest.raises(ConvertError, match=line):
        convert(src, tmp_path / "out")
    wrong = write_onevision(tmp_path / "wrong", model=onevision_model(Shape()))
    with pytest.raises(ConvertError, match="siglip_vision_model vision tower is not supported"):
        convert(src, tmp_path / "out", ConvertConfig(vision_tower=wrong))


def test_unknown_types_are_refused_at_construction() -> None:
    with pytest.raises(ConvertError, match=r"text type 'q9' is not a type .* it writes f32, f16, .*, q4_k_m"):
        ConvertConfig(text_type="q9")
    with pytest.raises(ConvertError, match=r"vision type 'q4_k_m' is not a type .*; K-quants are for language"):
        ConvertConfig(vision_type="q4_k_m")
    with pytest.raises(
        ConvertError, match=r"vision type 'int8' is not a type this converter writes; it writes f32, f16"
    ):
        ConvertConfig(vision_type="int8")


def test_processor_that_does_not_fit_the_tower(tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=model_of("llava"), scheme="llava-hf")
    processor = json.loads((src / "preprocessor_config.json").read_text())
    write_json(src / "preprocessor_config.json", {**processor, "crop_size": 32})
    with pytest.raises(ConvertError, match="makes pictures of 32 pixels, the vision tower takes 24"):
        convert(src, tmp_path / "out")
