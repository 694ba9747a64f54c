"""Which lists of fields a family's files are held against, and the look at all of a checkpoint's.

tests/test_convert_fields.py holds each against transformers' classes of the family.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checkpoint import Checkpoint, section
from ..fields import Around, Fields, Object, check
from ..preprocess import image_source, video_source
from . import config_fields as configs
from . import processor_fields as processors
from .layouts import tower_config


@dataclass(frozen=True)
class FamilyFields:
    """`text`: by model_type, the first where a config names none. `side`: of the tower's pictures by default."""

    top: Fields
    text: Mapping[str, Fields]
    vision: Fields
    side: int
    image: Fields
    video: Fields | None  # None: transformers has no video processor for it


PLAIN_TEXT = {"qwen2": configs.QWEN2, "qwen3": configs.QWEN3, "llama": configs.LLAMA}
OWN_LLAMA = {"llama": configs.OWN_LLAMA, "mistral": configs.OWN_MISTRAL}
ONEVISION = FamilyFields(
    configs.LLAVA_TOP,
    {"qwen2": configs.OWN_QWEN2},
    configs.OWN_VIT,
    224,
    processors.TILED,
    processors.ONEVISION_VIDEO,
)


def qwen(model_type: str, text: Fields, vision: Fields, image: Fields, video: Fields) -> FamilyFields:
    """Pictures have any size. Older configs name the language tower as the whole model."""
    return FamilyFields(configs.TOP, dict.fromkeys((f"{model_type}_text", model_type), text), vision, 0, image, video)


FIELDS: dict[str, FamilyFields] = {
    "llava_onevision": ONEVISION,
    "llava_video": ONEVISION,
    "llava": FamilyFields(configs.LLAVA_TOP, OWN_LLAMA, configs.OWN_VIT, 224, processors.CROPPED, None),
    "llava_next": FamilyFields(
        configs.LLAVA_TOP, OWN_LLAMA, configs.OWN_VIT, 224, processors.CROPPED_TILED, processors.NEXT_VIDEO
    ),
    "qwen2_vl": qwen("qwen2_vl", configs.QWEN2_VL, configs.QWEN2_VISION, processors.QWEN, processors.QWEN_VIDEO),
    "qwen2_5_vl": qwen("qwen2_5_vl", configs.QWEN2_VL, configs.QWEN2_5_VISION, processors.QWEN, processors.QWEN_VIDEO),
    "qwen3_vl": qwen("qwen3_vl", configs.QWEN3_VL, configs.QWEN3_VISION, processors.QWEN3, processors.QWEN3_VIDEO),
    "qwen3_5": qwen("qwen3_5", configs.QWEN3_5, configs.QWEN3_VISION, processors.QWEN3, processors.QWEN3_VIDEO),
    "smolvlm": FamilyFields(
        configs.SMOLVLM_TOP, PLAIN_TEXT, configs.GELU_VIT, 224, processors.SMOLVLM, processors.SMOLVLM_VIDEO
    ),
    "internvl": FamilyFields(
        configs.INTERN_TOP, PLAIN_TEXT, configs.INTERN_VISION, 448, processors.INTERN, processors.INTERN_VIDEO
    ),
    "gemma3": FamilyFields(
        configs.GEMMA3_TOP, {"gemma3_text": configs.GEMMA3}, configs.GELU_VIT, 224, processors.GEMMA3, None
    ),
    "gemma4": FamilyFields(
        configs.GEMMA4_TOP,
        {"gemma4_text": configs.GEMMA4},
        configs.GEMMA4_VISION,
        0,
        processors.GEMMA4,
        processors.GEMMA4_VIDEO,
    ),
}


def check_fields(family: str, checkpoint: Checkpoint, tower: Checkpoint | None) -> None:
    """Raises ConvertError for a value of config.json or of a processor that the converted model would not have.

    `tower`: the folder that --vision-tower names, whose config and processor count where the checkpoint has none.
    """
    known, config = FIELDS[family], checkpoint.config
    vision = tower_config(config, tower)
    image_file, image_at, image = image_source(checkpoint, tower)
    video_file, video_at, video = video_source(checkpoint)
    side = side_of(vision, known.side)

    def around(inner: Object) -> Around:
        return Around(inner, config, vision, side, image)

    check(config, known.top, "config.json", "", around)
    for at, text in text_sections(config):
        named = known.text.get(str(text.get("model_type")), next(iter(known.text.values())))
        check(text, named, "config.json", at, around)
    in_tower = tower is not None and not section(config, "vision_config")
    check(vision, known.vision, f"{tower.folder}/config.json" if tower and in_tower else "config.json",
          "" if in_tower else "vision_config.", around)  # fmt: skip
    check(image, known.image, image_file, image_at, around)
    if known.video is not None:
        check(video, known.video, video_file, video_at, around)


def text_sections(config: Object) -> list[tuple[str, dict[str, Any]]]:
    """The language tower's config and the way to it: an object of its own, or all of a flat config."""
    inner = [(f"{key}.", section(config, key)) for key in ("text_config", "llm_config") if section(config, key)]
    return inner or [("", dict(config))]


def side_of(vision: Object, default: int) -> int:
    """Pixels of a side of the tower's pictures; of equal sides, where a config names both."""
    found = vision.get("image_size") or default
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, int) else default
