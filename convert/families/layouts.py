"""The two layouts of config.json that families meet: transformers' (nested) and the authors' releases (flat).

Transformers writes `text_config` and `vision_config`, each as that tower's own config. The authors' releases are a
language model's config with keys `mm_...` added; the vision tower is named, not described. Knows both, no family.
"""

from collections.abc import Mapping
from typing import Any

from ..checkpoint import Checkpoint, section
from ..errors import ConvertError, Unsupported
from ..text import TextSpec, read_text
from ..vision_towers import KNOWN_TOWERS, TowerKind, VisionSpec, read_vision


def architecture(config: Mapping[str, Any]) -> str:
    """The class that wrote the checkpoint, else its model type."""
    names = config.get("architectures") or []
    return str(names[0]) if names else str(config.get("model_type"))


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether this is the authors' own layout."""
    return "mm_vision_tower" in config and "text_config" not in config


def text_tower(config: Mapping[str, Any], arch: str, family: str) -> TextSpec:
    """The language tower, in either layout. Flat configs call the whole model's type model_type, so it says nothing."""
    original = is_original(config)
    text = {k: v for k, v in config.items() if k != "model_type"} if original else section(config, "text_config")
    return read_text(text, arch, bool(config.get("tie_word_embeddings")), family)


def vision_tower(
    config: Mapping[str, Any], tower: Checkpoint | None, kind: TowerKind, layer: int, strategy: str, family: str
) -> VisionSpec:
    """The vision tower, in either layout. `layer`, `strategy`: transformers' defaults of the feature selection."""
    found = feature_layer(config, layer, strategy)
    return read_vision(tower_config(config, tower), kind, found, family)


def tower_config(config: Mapping[str, Any], tower: Checkpoint | None) -> dict[str, Any]:
    """The vision tower's config: inside the checkpoint's, in the tower's own folder, or known by name."""
    if section(config, "vision_config"):
        return section(config, "vision_config")
    if tower is not None:
        return section(tower.config, "vision_config") or tower.config
    if not is_original(config):
        return {}
    name = str(config.get("mm_vision_tower", ""))
    if (known := KNOWN_TOWERS.get(name.rstrip("/").rsplit("/", 1)[-1])) is not None:
        return known
    raise ConvertError(
        f"vision tower {name!r} is named but not described; download it and pass its folder as vision_tower"
    )


def feature_layer(config: Mapping[str, Any], layer: int, strategy: str) -> object:
    """The hidden state that the projector reads, as the config writes it. Raises Unsupported for other selections."""
    if is_original(config):
        layer, strategy = config.get("mm_vision_select_layer", -2), "patch"
        found = config.get("mm_vision_select_feature", strategy)
    else:
        layer, found = config.get("vision_feature_layer", layer), config.get("vision_feature_select_strategy", strategy)
    if found != strategy:
        raise Unsupported(f"vision feature selection {found!r} is not supported ({strategy!r} is)")
    return layer
