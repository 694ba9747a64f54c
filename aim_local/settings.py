"""Text forms: settings of visual tokens (`paper`, `budget=0.15`, `paper:keep=0.5`), changes of load options, and the
values that people write.

Knows how a number, a pair of layers, a list, a VisualTokenConfig and changes of a LoadConfig are written, and nothing
else; what a value may be is checked by the dataclass that holds it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Literal

from .config import IMPORTANCE, LoadConfig, VisualTokenConfig
from .errors import UsageError

Layers = tuple[int, int] | Literal["auto", "late"] | None

PRESETS = {
    "off": VisualTokenConfig.off(),
    "auto": VisualTokenConfig.auto(),
    "paper": VisualTokenConfig.paper(),
    "fast": VisualTokenConfig.fast(),
    "merge-only": VisualTokenConfig(prune_layers=None),
    "prune-only": VisualTokenConfig(merge_retain=1.0),
    "late-drop": VisualTokenConfig.late_drop(),
    "average": VisualTokenConfig(merge_by="average"),
    "ward": VisualTokenConfig.ward(),
    "authors": VisualTokenConfig.authors(),
    **{name: VisualTokenConfig(importance=name) for name in IMPORTANCE if name != "pagerank"},
}
_FORM = (
    "NAME[:keep=SHARE][:merge=HOW][:window=N][:prune=L1-L2|auto|late|off][:importance=HOW][:weigh=equal|size][:seed=N]"
)
_PAIR = re.compile(r"\s*(\d{1,9})\s*[,-]\s*(\d{1,9})\s*", re.ASCII)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """An error of the text forms raised inside begins with `what`: the option or the setting that was wrong."""
    try:
        yield
    except UsageError as e:
        raise UsageError(f"{what}: {e}") from e


# --- values -----------------------------------------------------------------------------------------------------------


def parse_number(text: str | float) -> float:
    """A number. Raises UsageError."""
    try:
        return float(_plain(text))
    except ValueError as e:
        raise UsageError(f"{text!r} is no number; give one such as 0.5") from e


def parse_whole(text: str | int) -> int:
    """A whole number. Raises UsageError."""
    try:
        return int(_plain(text))
    except ValueError as e:
        raise UsageError(f"{text!r} is no whole number; give one such as 8") from e


def _plain(number: str | float) -> str | float:
    """Raises ValueError for what Python reads beyond ASCII digits: those of other scripts, and 1_000."""
    if isinstance(number, str) and ("_" in number or not number.isascii()):
        raise ValueError(number)
    return number


def parse_layers(text: str) -> Layers:
    """VisualTokenConfig.prune_layers from "14,22" or "14-22", "auto", "late" or "off". Raises UsageError."""
    if text == "off":
        return None
    if text == "auto":
        return "auto"
    if text == "late":
        return "late"
    found = _PAIR.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is no pair of layers; give one such as 14,22 or 14-22, or auto, late, off")
    return int(found[1]), int(found[2])


def parse_list(text: str) -> list[str]:
    """Entries between commas, none empty, none twice. Raises UsageError."""
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entries):
        raise UsageError(f"{text!r} has an empty entry; separate entries by single commas")
    twice = [entry for entry, n in Counter(entries).items() if n > 1]
    if twice:
        raise UsageError(f"{text!r} names {twice[0]} twice; give each once")
    return entries


# --- settings ---------------------------------------------------------------------------------------------------------


def parse_setting(text: str) -> VisualTokenConfig:
    """The configuration that a setting's name means. Raises UsageError, saying what names there are.

    A preset, or budget=SHARE (share of the full prompt's FLOPs), then changes to it: keep, merge, window, prune,
    importance, weigh, seed, in any order.
    """
    name, *parts = text.strip().split(":")
    config, changes = _preset(name, text), dict[str, str]()
    for part in parts:
        key, _, value = part.partition("=")
        if key not in _CHANGES or not value:
            raise UsageError(f"setting {text!r}: {part!r} is unknown; the form is {_FORM}")
        changes[key] = value
    return refine(config, changes, f"setting {text!r}: ")


def refine(config: VisualTokenConfig, changes: Mapping[str, str], before: str) -> VisualTokenConfig:
    """`config` with other values of keep, merge, window, prune, importance, weigh or seed, as people write them.

    Their order says nothing. Raises UsageError.

    before: what stands before the key in an error, such as "--" for an option.
    """
    for key in (key for key in _CHANGES if key in changes):
        value = changes[key]
        with blaming(f"{before}{key}"):
            if config.flops_share is not None and key in ("keep", "prune"):
                raise UsageError(f"a budget plans what {key} says; give one or the other")
            config = _CHANGES[key](config, value)
    return config


def _preset(name: str, text: str) -> VisualTokenConfig:
    key, _, share = name.partition("=")
    if key == "budget" and share:
        with blaming(f"setting {text!r}"):
            return VisualTokenConfig.budget(parse_number(share))
    if name not in PRESETS:
        raise UsageError(f"setting {text!r} is unknown; give {', '.join(PRESETS)} or budget=0.15 (a share)")
    return PRESETS[name]


_CHANGES: dict[str, Callable[[VisualTokenConfig, str], VisualTokenConfig]] = {
    "keep": lambda config, text: replace(config, merge_retain=parse_number(text)),
    "merge": lambda config, text: replace(config, merge_by=text),
    "window": lambda config, text: replace(config, merge_window=parse_whole(text)),
    "prune": lambda config, text: replace(config, prune_layers=parse_layers(text)),
    "importance": lambda config, text: replace(config, importance=text),
    "weigh": lambda config, text: replace(config, weigh=text),
    "seed": lambda config, text: replace(config, seed=parse_whole(text)),
}


# --- load options -----------------------------------------------------------------------------------------------------


def refine_load(load: LoadConfig, text: str) -> LoadConfig:
    """`load` with the options that NAME=VALUE[:NAME=VALUE] names: type_k=q8_0:type_v=q8_0. Raises UsageError."""
    known, changes = [field.name for field in fields(LoadConfig) if field.name != "rpc"], dict[str, Any]()
    for part in text.split(":"):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in known or not value or name in changes:
            raise UsageError(f"load option {text!r}: {part!r} is none; the form is NAME=VALUE of {', '.join(known)}")
        with blaming(f"load option {text!r}"):
            changes[name] = _LOAD_VALUES.get(name, str)(value)
    with blaming(f"load option {text!r}"):
        return replace(load, **changes)


def parse_flash(text: str) -> Literal["auto"] | bool:
    """LoadConfig.flash_attn. Raises UsageError."""
    words: dict[str, Literal["auto"] | bool] = {"auto": "auto", "on": True, "off": False}
    if text not in words:
        raise UsageError(f"{text!r} is unknown; give {', '.join(words)}")
    return words[text]


def parse_gpu_layers(text: str | int) -> int | None:
    """LoadConfig.n_gpu_layers: a whole number, or "auto" for None. Raises UsageError."""
    return None if text == "auto" else parse_whole(text)


_LOAD_VALUES: dict[str, Callable[[str], Any]] = {  # the others are words
    **dict.fromkeys(("n_ctx", "n_ubatch", "n_threads"), parse_whole),
    "n_gpu_layers": parse_gpu_layers,
    **dict.fromkeys(("vision_merge", "vision_merge_depth"), parse_number),
    "flash_attn": parse_flash,
}
