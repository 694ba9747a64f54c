"""LLaVA-Video's conversion: which checkpoints are it, what its files hold, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import Shape, state_of, write_llava_video, write_onevision, write_tower, write_weights  # noqa: E402
from convert_models import content, keys, model_of, tensors  # noqa: E402

from aim_local.convert import ConvertConfig, ConvertError, ConvertResult, convert, templates  # noqa: E402
from aim_local.convert.checkpoint import Checkpoint  # noqa: E402
from aim_local.convert.families import read_model  # noqa: E402
from aim_local.convert.families.llava_video import LlavaVideo  # noqa: E402

OWN_KEYS = {"aim.family", "aim.video.newline", "aim.video.pool", "aim.video.pool_stride", "aim.video.times"}
# as the authors' training script writes that of lmms-lab/LLaVA-Video-7B-Qwen2, without what is the class default
LLAVA_VIDEO_7B: dict[str, Any] = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1000000.0,
    "vocab_size": 152064,
    "add_faster_video": False,
    "add_time_instruction": True,
    "faster_token_stride": 10,
    "force_sample": True,
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": [[384 * w, 384 * h] for w in range(1, 7) for h in range(1, 7)],
    "mm_newline_position": "grid",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_spatial_pool_mode": "bilinear",
    "mm_spatial_pool_stride": 2,
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
}
UNSAID = {"mm_newline_position": ..., "mm_spatial_pool_mode": ..., "add_time_instruction": ...}


def converted(folder: Path, **options: Any) -> ConvertResult:
    """A LLaVA-Video checkpoint with the weights of the tiny OneVision model, converted."""
    model = model_of("llava_onevision")
    source = write_llava_video(folder / "source", model=model, **options)
    tower = write_tower(folder / "tower", model=model, kind="siglip")
    return convert(source, folder / "out", ConvertConfig("f32", "f32", vision_tower=tower, name="tiny"))


def read(folder: Path, **changes: Any) -> Any:
    config = {key: value for key, value in {**LLAVA_VIDEO_7B, **changes}.items() if value is not ...}
    return read_model(Checkpoint(folder, config, {}), None)


def test_the_published_config(tmp_path: Path) -> None:
    model = read(tmp_path)
    assert isinstance(model, LlavaVideo)
    assert (model.newline, model.pool, model.times) == ("grid", "bilinear", True)
    assert (model.text.n_layer, model.vision.n_layer, model.vision.n_patches) == (28, 26, 729)
    assert (model.preprocess.n_frames, len(model.pinpoints), model.max_tiles) == (64, 36, 9)
    assert model.notes() == []


@pytest.mark.parametrize(
    ("changes", "family", "times"),
    [
        ({}, "llava_video", True),
        ({"add_time_instruction": ...}, "llava_video", True),  # the Video-Only release
        ({"add_time_instruction": False}, "llava_video", False),
        ({"mm_newline_position": "one_token"}, "llava_video", True),
        (
            {"mm_newline_position": ..., "mm_spatial_pool_mode": "average", "add_time_instruction": ...},
            "llava_video",
            False,
        ),
        ({"mm_newline_position": "one_token", "add_time_instruction": False}, "llava_onevision", False),
        (
            {"mm_newline_position": ..., "mm_spatial_pool_mode": ..., "add_time_instruction": ...},
            "llava_onevision",
            False,
        ),
    ],
)
def test_what_makes_a_checkpoint_llava_video(changes: dict[str, Any], family: str, times: bool, tmp_path: Path) -> None:
    model = read(tmp_path, **changes)
    assert model.name == family
    assert getattr(model, "times", False) == times
    assert bool(model.notes()) == (family == "llava_video" and not times)


@pytest.mark.parametrize(("newline", "pool"), [("grid", "bilinear"), ("grid", "average"), ("one_token", "average")])
def test_its_files_are_llava_onevisions_but_for_its_own_keys(newline: str, pool: str, tmp_path: Path) -> None:
    result = converted(tmp_path, newline=newline, pool=pool)
    model = model_of("llava_onevision")
    source = write_onevision(tmp_path / "onevision", scheme="original", model=model)
    (source / "chat_template.jinja").unlink()
    (source / "video_preprocessor_config.json").unlink()
    config = ConvertConfig("f32", "f32", vision_tower=tmp_path / "tower", name="tiny")
    onevision = convert(source, tmp_path / "onevision-out", config)
    assert result.architecture == "llava_video"
    texts = (keys(result.model), keys(onevision.model))
    assert {key for key in texts[0] if texts[0][key] != texts[1].get(key)} == {"aim.origin"}
    weights = [{n: t.data.tobytes() for n, t in tensors(r.model).items()} for r in (result, onevision)]
    assert weights[0] == weights[1]
    ours, theirs = keys(result.mmproj), keys(onevision.mmproj)
    differing = {key for key in ours if ours[key] != theirs.get(key) and not key.startswith("GGUF.")}
    differing -= {"aim.origin"}
    assert differing == OWN_KEYS | {"aim.video.n_frames"}
    assert {key: ours[key] for key in differing} == {
        "aim.family": "llava_video",
        "aim.video.newline": newline,
        "aim.video.pool": pool,
        "aim.video.pool_stride": 2,
        "aim.video.times": True,
        "aim.video.n_frames": 64,
    }
    mine, other = tensors(result.mmproj), tensors(onevision.mmproj)
    assert {n: t.data.tobytes() for n, t in mine.items()} == {n: t.data.tobytes() for n, t in other.items()}
    assert keys(result.model)["tokenizer.chat_template"] == templates.CHATML


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"mm_newline_position": "frame"},
            r"'frame' is not supported \('grid' and 'one_token' are\)",
        ),
        ({"mm_newline_position": "no_token"}, "mm_newline_position 'no_token' is not supported"),
        ({"mm_spatial_pool_mode": "max"}, r"pool_mode 'max' is not supported \('bilinear' and 'average' are\)"),
        ({"mm_spatial_pool_stride": 4}, r"mm_spatial_pool_stride 4 is not supported \(2 is\)"),
        ({"add_faster_video": True}, r"add_faster_video True is not supported \(False is\)"),
        ({"mm_patch_merge_type": "spatial"}, r"mm_patch_merge_type 'spatial' is not supported"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True is not supported"),
    ],
)
def test_other_variants_are_refused_in_one_line(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=f"{line}.*; supported are LLaVA-Video") as caught:
        read(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_the_faster_token_is_a_tensor_nobody_runs(tmp_path: Path) -> None:
    """A config that does not say add_faster_video beside weights that have its token."""
    model = model_of("llava_onevision")
    source = write_llava_video(tmp_path / "source", model=model)
    state = state_of(model, "original") | {"model.faster_token": torch.ones(Shape().d_text)}
    write_weights(source, state, 1, torch.float32)
    tower = write_tower(tmp_path / "tower", model=model, kind="siglip")
    with pytest.raises(ConvertError, match=r"a llava_video model does not know \(model\.faster_token\)"):
        convert(source, tmp_path / "out", ConvertConfig(vision_tower=tower))


def test_the_same_checkpoint_makes_the_same_files(tmp_path: Path) -> None:
    assert content(converted(tmp_path / "a").folder) == content(converted(tmp_path / "b").folder)
