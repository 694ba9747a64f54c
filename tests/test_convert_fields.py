"""No field that transformers reads is ignored without a word: each is in one list, and values beyond are refused."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torchvision_ops  # noqa: E402, F401  (before transformers' processors)
from convert_models import WRITE, model_of  # noqa: E402
from published_upstream import PUBLISHED  # noqa: E402

from aim_local.convert import ConvertError, convert  # noqa: E402
from aim_local.convert.checkpoint import Checkpoint, read_json  # noqa: E402
from aim_local.convert.families import FAMILIES, UPSTREAM, check_fields, read_model  # noqa: E402
from aim_local.convert.families.known_fields import FIELDS  # noqa: E402
from aim_local.convert.families.processor_fields import TOGETHER  # noqa: E402
from aim_local.convert.fields import Fields  # noqa: E402

TEXTS = {"qwen2": "Qwen2Config", "qwen3": "Qwen3Config", "llama": "LlamaConfig", "mistral": "MistralConfig"}
TOWERS = {"siglip": "SiglipVisionConfig", "clip": "CLIPVisionConfig"}
# the whole model's config, and its processors'; what is inside a config its class says itself
CLASSES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "llava_onevision": (("LlavaOnevisionConfig",), ("LlavaOnevisionImageProcessor",), "LlavaOnevisionVideoProcessor"),
    "llava": (("LlavaConfig",), ("LlavaImageProcessor", "CLIPImageProcessor"), ""),
    "llava_next": (
        ("LlavaNextConfig", "LlavaNextVideoConfig"),
        ("LlavaNextImageProcessor",),
        "LlavaNextVideoVideoProcessor",
    ),
    "qwen2_vl": (("Qwen2VLConfig",), ("Qwen2VLImageProcessor",), "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": (("Qwen2_5_VLConfig",), ("Qwen2VLImageProcessor",), "Qwen2VLVideoProcessor"),
    "qwen3_vl": (("Qwen3VLConfig",), ("Qwen2VLImageProcessor",), "Qwen3VLVideoProcessor"),
    "qwen3_5": (("Qwen3_5Config",), ("Qwen2VLImageProcessor",), "Qwen3VLVideoProcessor"),
    "smolvlm": (
        ("SmolVLMConfig", "Idefics3Config"),
        ("SmolVLMImageProcessor", "Idefics3ImageProcessor"),
        "SmolVLMVideoProcessor",
    ),
    "internvl": (("InternVLConfig",), ("GotOcr2ImageProcessor",), "InternVLVideoProcessor"),
    "gemma3": (("Gemma3Config",), ("Gemma3ImageProcessor",), ""),
    "gemma4": (("Gemma4Config",), ("Gemma4ImageProcessor",), "Gemma4VideoProcessor"),
}


def config_fields(known: type) -> set[str]:
    """What a config class is made from: its fields, their other names, and what it takes out of the rest."""
    config = known(vision_config={}) if known.__name__ == "Gemma4Config" else known()
    taken = re.findall(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\"", inspect.getsource(known))
    return {*config.to_dict(), *getattr(known, "attribute_map", {}), *taken} - {"torch_dtype"}


def processor_fields(known: type) -> set[str]:
    """What a processor class writes, and every option that its call takes."""
    options = (vars(base).get("valid_kwargs") for base in known.__mro__)
    return {*known().to_dict(), *(key for found in options if found for base in found.__mro__
                                  for key in getattr(base, "__annotations__", {}))}  # fmt: skip


def parts(family: str) -> Iterator[tuple[str, Fields, set[str]]]:
    """Each class of transformers that reads a file of the family: its name, our lists, its fields."""
    known, (tops, images, video) = FIELDS[family], CLASSES[family]
    for name in tops:
        top = getattr(transformers, name)
        yield name, known.top, config_fields(top)
        made = top(vision_config={}) if family == "gemma4" else top()
        yield f"{name}.vision_config", known.vision, config_fields(type(made.vision_config))
        own = type(made.text_config)
        for kind, lists in known.text.items():
            yield f"{name}.text_config", lists, config_fields(getattr(transformers, TEXTS.get(kind, ""), own))
    for name in images:
        yield name, known.image, processor_fields(getattr(transformers, name))
    if known.video:
        yield video, known.video, processor_fields(getattr(transformers, video))


@pytest.mark.parametrize("family", CLASSES)
def test_every_field_of_transformers_is_in_a_list(family: str) -> None:
    for name, lists, found in parts(family):
        assert found - lists.known == set(), name


@pytest.mark.parametrize("family", CLASSES)
def test_every_field_of_what_ties_processors_together_is_in_a_list(family: str) -> None:
    for config in CLASSES[family][0]:
        known = getattr(transformers, config.replace("Config", "Processor").replace("Qwen3_5", "Qwen3VL"))
        assert set(inspect.signature(known.__init__).parameters) - {"self", "kwargs"} - TOGETHER.known == set()


def test_every_family_has_lists() -> None:
    assert {*CLASSES, "llava_video"} == set(FIELDS)
    assert {family.name for family in (*FAMILIES, *UPSTREAM)} == set(FIELDS)
    assert all((not CLASSES[name][2]) == (FIELDS[name].video is None) for name in CLASSES)


def test_every_rotary_field_is_in_a_list() -> None:
    from transformers.modeling_rope_utils import RopeParameters

    for family in FIELDS.values():
        for text in family.text.values():
            inner = text.objects["rope_parameters"]
            for lists in [inner.objects[key] for key in inner.objects] or [inner]:
                assert set(RopeParameters.__annotations__) - lists.known == set()


def write(folder: Path, files: Mapping[str, Any]) -> Checkpoint:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return Checkpoint(folder, read_json(folder / "config.json"), {})


def changed(files: Mapping[str, Any], file: str, way: str, value: Any) -> dict[str, Any]:
    """The files with a value at a way of keys put into one of them, or taken out with `...`."""
    copy: dict[str, Any] = json.loads(json.dumps(files))
    *inner, last = way.split(".")
    place = copy.setdefault(file, {})
    for key in inner:
        place = place.setdefault(key, {})
    place[last] = value
    return copy


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_are_taken(name: str, tmp_path: Path) -> None:
    family, files = PUBLISHED[name]
    check_fields(family, write(tmp_path, files), None)


CONFIG, IMAGE, VIDEO, BOTH = (
    "config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
ONEVISION, NEXT_VIDEO, QWEN, QWEN3, INTERN = (
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    "llava-hf/LLaVA-NeXT-Video-7B-hf",
    "Qwen/Qwen2.5-VL-3B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "OpenGVLab/InternVL3-1B-hf",
)
SMOLVLM, GEMMA, GEMMA4 = "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "google/gemma-3-4b-it", "google/gemma-4-E2B-it"
REFUSED: list[tuple[str, str, str, Any]] = [
    (ONEVISION, CONFIG, "text_config.hidden_act", "gelu"),
    (ONEVISION, CONFIG, "text_config.use_sliding_window", True),
    (ONEVISION, CONFIG, "text_config.layer_types", ["full_attention", "sliding_attention"]),
    (ONEVISION, CONFIG, "text_config.rope_parameters.partial_rotary_factor", 0.5),
    (ONEVISION, CONFIG, "text_config.rope_scaling.beta_fast", 16),
    (ONEVISION, CONFIG, "text_config.rope_scaling.attention_factor", 2.0),
    (ONEVISION, CONFIG, "vision_config.hidden_act", "relu"),
    (ONEVISION, CONFIG, "projector_hidden_act", "relu"),
    (ONEVISION, CONFIG, "multimodal_projector_bias", False),
    (ONEVISION, IMAGE, "rescale_factor", 1.0),
    (ONEVISION, IMAGE, "do_normalize", False),
    (ONEVISION, IMAGE, "do_rescale", False),
    (ONEVISION, IMAGE, "do_resize", False),
    (ONEVISION, IMAGE, "do_center_crop", True),
    (ONEVISION, IMAGE, "pad_size", {"height": 400, "width": 400}),
    (ONEVISION, IMAGE, "image_grid_pinpoints", [[384, 384]]),
    (ONEVISION, BOTH, "image_processor.rescale_factor", 1.0),
    (ONEVISION, BOTH, "video_processor.image_std", [0.1, 0.2, 0.3]),
    (ONEVISION, VIDEO, "image_mean", [0.1, 0.2, 0.3]),
    (ONEVISION, VIDEO, "size", {"height": 192, "width": 192}),
    (ONEVISION, VIDEO, "rescale_factor", 1 / 127.5),
    (NEXT_VIDEO, CONFIG, "text_config.hidden_act", "gelu"),
    (NEXT_VIDEO, VIDEO, "do_normalize", False),
    (QWEN, CONFIG, "hidden_act", "gelu"),
    (QWEN, CONFIG, "use_sliding_window", True),
    (QWEN, CONFIG, "rms_norm_eps", 1e-5),  # the vision tower would have it too
    (QWEN, CONFIG, "rope_scaling.type", "longrope"),
    (QWEN, CONFIG, "vision_config.hidden_act", "quick_gelu"),
    (QWEN, CONFIG, "vision_config.window_size", 224),
    (QWEN, CONFIG, "vision_config.spatial_merge_size", 4),
    (QWEN, IMAGE, "patch_size", 16),
    (QWEN, IMAGE, "merge_size", 4),
    (QWEN, IMAGE, "do_rescale", False),
    (QWEN, VIDEO, "image_mean", [0.5, 0.5, 0.5]),
    (QWEN, VIDEO, "cap_pixels_per_frame", True),
    (QWEN3, CONFIG, "text_config.rms_norm_eps", 1e-5),
    (QWEN3, CONFIG, "text_config.attention_bias", True),
    (QWEN3, CONFIG, "vision_config.rope_parameters.rope_theta", 1e6),
    (INTERN, CONFIG, "vision_feature_layer", -2),
    (INTERN, CONFIG, "vision_feature_select_strategy", "full"),
    (INTERN, CONFIG, "downsample_ratio", 0.3),
    (INTERN, CONFIG, "vision_config.norm_type", "rms_norm"),
    (INTERN, CONFIG, "vision_config.use_mean_pooling", False),
    (INTERN, IMAGE, "size", {"height": 336, "width": 336}),
    (INTERN, VIDEO, "size", {"height": 336, "width": 336}),
    (SMOLVLM, CONFIG, "vision_config.hidden_act", "relu"),
    (SMOLVLM, IMAGE, "max_image_size", {"longest_edge": 512}),
    (GEMMA, CONFIG, "text_config.hidden_activation", "silu"),
    (GEMMA, CONFIG, "text_config.query_pre_attn_scalar", 128),
    (GEMMA, CONFIG, "text_config.use_bidirectional_attention", True),
    (GEMMA, CONFIG, "text_config.attn_logit_softcapping", 50.0),
    (GEMMA, CONFIG, "text_config.sliding_window_pattern", 2),
    (GEMMA, CONFIG, "text_config.rope_scaling.rope_type", "yarn"),
    (GEMMA, IMAGE, "do_pan_and_scan", True),
    (GEMMA4, CONFIG, "text_config.use_bidirectional_attention", "all"),
    (GEMMA4, BOTH, "image_processor.image_mean", [0.5, 0.5, 0.5]),  # do_normalize is false, with 0 and 1
]


@pytest.mark.parametrize(("name", "file", "way", "value"), REFUSED)
def test_what_is_not_computed_is_refused(name: str, file: str, way: str, value: Any, tmp_path: Path) -> None:
    family, files = PUBLISHED[name]
    checkpoint = write(tmp_path, changed(files, file, way, value))
    key = "do_normalize" if (name, way) == (GEMMA4, "image_processor.image_mean") else way.rpartition(".")[2]
    with pytest.raises(ConvertError, match=rf"^{re.escape(file)}: (\w+\.)*{key} is .*, which is not supported") as e:
        check_fields(family, checkpoint, None)
    assert "\n" not in str(e.value)
    assert key != way.rpartition(".")[2] or repr(value)[:50] in str(e.value)


TAKEN: list[tuple[str, str, str, Any]] = [
    (ONEVISION, CONFIG, "text_config.hidden_act", None),
    (ONEVISION, CONFIG, "text_config.colour", "blue"),  # transformers does not know it either
    (ONEVISION, CONFIG, "text_config.layer_types", ["full_attention"] * 24),
    (ONEVISION, IMAGE, "rescale_factor", 0.003921568859368563),  # 1 / 255 in float32
    (ONEVISION, IMAGE, "do_center_crop", False),
    (ONEVISION, VIDEO, "image_mean", 0.5),
    (NEXT_VIDEO, IMAGE, "do_center_crop", True),
    (QWEN, CONFIG, "rope_scaling.type", "yarn"),
    (QWEN, CONFIG, "text_config", {"rms_norm_eps": 1e-5}),
    (QWEN, VIDEO, "fps", 4),
    (INTERN, CONFIG, "downsample_ratio", 1 / 3),
    (GEMMA, IMAGE, "do_pan_and_scan", False),
]


@pytest.mark.parametrize(("name", "file", "way", "value"), TAKEN)
def test_what_is_computed_alike_is_taken(name: str, file: str, way: str, value: Any, tmp_path: Path) -> None:
    family, files = PUBLISHED[name]
    check_fields(family, write(tmp_path, changed(files, file, way, value)), None)


def test_the_new_file_counts_before_the_old(tmp_path: Path) -> None:
    """As transformers reads them: what the old file says beside an image_processor in the new one is not read."""
    from transformers import LlavaOnevisionImageProcessor

    family, files = PUBLISHED[ONEVISION]
    files = changed(changed(files, IMAGE, "rescale_factor", 1.0), BOTH, "image_processor", files[IMAGE])
    checkpoint = write(tmp_path, files)
    check_fields(family, checkpoint, None)
    assert LlavaOnevisionImageProcessor.from_pretrained(tmp_path).rescale_factor != 1.0


def test_a_tower_of_its_own_is_looked_at(tmp_path: Path) -> None:
    tower = write(tmp_path, {"config.json": {"model_type": "siglip_vision_model", "hidden_act": "relu"}})
    config = {"architectures": ["LlavaQwenForCausalLM"], "mm_vision_tower": "somebody/siglip-tiny"}
    with pytest.raises(ConvertError, match=rf"^{tmp_path}/config\.json: hidden_act is 'relu', .*'gelu'"):
        read_model(Checkpoint(tmp_path / "flat", config, {}), tower)
    tower = write(tmp_path, {"config.json": {"model_type": "siglip_vision_model"}, IMAGE: {"do_rescale": False}})
    with pytest.raises(ConvertError, match=rf"^{tmp_path}/preprocessor_config\.json: do_rescale is False, .*True is"):
        read_model(Checkpoint(tmp_path / "flat", config, {}), tower)


@pytest.mark.parametrize(
    ("file", "way", "value", "line"),
    [
        (
            "config.json",
            "text_config.hidden_act",
            "gelu",
            r"^config\.json: text_config\.hidden_act is 'gelu'.*'silu' or",
        ),
        (
            "processor_config.json",
            "image_processor.do_rescale",
            False,
            r"image_processor\.do_rescale is False.*\(True is",
        ),
        (
            "processor_config.json",
            "video_processor.image_std",
            [0.1] * 3,
            r"video_processor\.image_std is \[0\.1, 0\.1",
        ),
    ],
)
def test_nothing_is_written(file: str, way: str, value: Any, line: str, tmp_path: Path) -> None:
    src = WRITE["llava_onevision"](tmp_path / "src", model=model_of("llava_onevision"))
    (src / file).write_text(json.dumps(changed({file: json.loads((src / file).read_text())}, file, way, value)[file]))
    with pytest.raises(ConvertError, match=line):
        convert(src, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]
