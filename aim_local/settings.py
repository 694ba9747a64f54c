"""Names of visual-token settings, as commands and reports write them: `paper`, `budget=0.15`, `paper:keep=0.5`.

Knows the text form of VisualTokenConfig and nothing else; the values are checked by VisualTokenConfig.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from .config import IMPORTANCE, VisualTokenConfig
from .errors import UsageError

PRESETS = {
    "off": VisualTokenConfig.off(),
    "paper": VisualTokenConfig.paper(),
    "fast": VisualTokenConfig.fast(),
    "merge-only": VisualTokenConfig(prune_layers=None),
    "prune-only": VisualTokenConfig(merge_retain=1.0),
    "late-drop": VisualTokenConfig.late_drop(),
    "average": VisualTokenConfig(merge_by="average"),
    **{name: VisualTokenConfig(importance=name) for name in IMPORTANCE if name != "pagerank"},
}
_FORM = "NAME[:keep=SHARE][:prune=L1-L2|auto|late|off][:importance=HOW][:seed=N]"


def parse_setting(text: str) -> VisualTokenConfig:
    """The configuration that a setting's name means. Raises UsageError, saying what names there are.

    A preset, or budget=SHARE (share of the full prompt's FLOPs), then changes to it: keep, prune, importance, seed.
    """
    name, *changes = text.strip().split(":")
    config = _preset(name, text)
    for change in changes:
        key, _, value = change.partition("=")
        if key not in _CHANGES or not value:
            raise UsageError(f"setting {text!r}: {change!r} is unknown; the form is {_FORM}")
        if config.flops_share is not None and key in ("keep", "prune"):
            raise UsageError(f"setting {text!r}: a budget plans what {key} says; give one or the other")
        config = replace(config, **_CHANGES[key](value, text))
    return config


def _preset(name: str, text: str) -> VisualTokenConfig:
    key, _, share = name.partition("=")
    if key == "budget" and share:
        return VisualTokenConfig.budget(_number(share, text))
    if name not in PRESETS:
        raise UsageError(f"setting {text!r} is unknown; give {', '.join(PRESETS)} or budget=0.15 (a share)")
    return PRESETS[name]


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError as e:
        raise UsageError(f"setting {text!r}: {value!r} is no number; give one such as 0.25") from e


def _whole(value: str, text: str) -> int:
    try:
        return int(value)
    except ValueError as e:
        raise UsageError(f"setting {text!r}: {value!r} is no whole number; give one such as 8") from e


def _layers(value: str, text: str) -> Literal["auto", "late"] | tuple[int, int] | None:
    if value == "off":
        return None
    if value == "auto":
        return "auto"
    if value == "late":
        return "late"
    l1, dash, l2 = value.partition("-")
    if not dash:
        raise UsageError(f"setting {text!r}: {value!r} is no pair of layers; give prune=14-22, auto, late or off")
    return _whole(l1, text), _whole(l2, text)


_CHANGES: dict[str, Any] = {
    "keep": lambda value, text: {"merge_retain": _number(value, text)},
    "prune": lambda value, text: {"prune_layers": _layers(value, text)},
    "importance": lambda value, text: {"importance": value},
    "seed": lambda value, text: {"seed": _whole(value, text)},
}
