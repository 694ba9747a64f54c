"""Messages of the library in the words of a request: `n_frames=8` is frames=8 there, and a context's size is said when
the server is started.

The library names its own fields, for those who call it from Python; here is the table from fields to those of a
request, and to options of `aim-local serve`. Knows text, and asks nobody.
"""

from __future__ import annotations

import re

from ..errors import without_python_only
from .media.words import OPTIONS

# fields of LoadConfig -> options of `aim-local serve`
STARTS = {
    "n_ctx": "--ctx",
    "max_pixels": OPTIONS["n_pixels"],
    "type_k": "--type-k",
    "type_v": "--type-v",
    "flash_attn": "--flash-attn",
    "frame_tokens": "--frame-tokens",
    "n_gpu_layers": "--gpu-layers",
    "cache_media": "--no-cache",
}
# fields of VisualTokenConfig -> keys of a setting in visual_tokens (settings.py)
SETTING = {
    "merge_retain": "keep",
    "merge_by": "merge",
    "merge_window": "window",
    "prune_layers": "prune",
    "importance": "importance",
    "weigh": "weigh",
}
_VALUES = {"None": "off", "True": "on", "False": "off"}  # as they are written on a command line, and in a setting
_VALUE = r"""(None|True|False|"[^"]*"|'[^']*'|[\w.-]+)"""
_HERE = r"""(?<![\w/.:'"-])"""
_STARTED = "|".join(STARTS)
_NAMES = "|".join(name for name in SETTING if "_" in name)
_ASKED = re.compile(rf"(?:load with|give|use|set) (a larger |a smaller )?({_STARTED})(?:={_VALUE})?(?![\w/=-]|\.\w)")
_ALONE = re.compile(rf"{_HERE}({_STARTED})={_VALUE}")
_SET = re.compile(rf"{_HERE}({'|'.join(SETTING)})={_VALUE}")
_NAMED = re.compile(rf"{_HERE}({_NAMES})(?![\w/=-]|\.\w)")
_TOKENS = re.compile(rf"{_HERE}tokens=(?=[\w])")
_N_FRAMES = re.compile(rf"{_HERE}n_frames(?![\w/-])")


def in_fields(message: str) -> str:
    """A message with a request's fields, or the server's options, in the place of the library's fields."""
    message = without_python_only(message)
    message = _ASKED.sub(lambda found: f"start the server with {_started(found[2], found[3], found[1] or '')}", message)
    message = _ALONE.sub(lambda found: f"the server's {_started(found[1], found[2])}", message)
    message = _SET.sub(lambda found: f"visual_tokens with {SETTING[found[1]]}={_value(found[2])}", message)
    message = _TOKENS.sub("visual_tokens=", message)
    message = _NAMED.sub(lambda found: f"visual_tokens: {SETTING[found[1]]}", message)
    return _N_FRAMES.sub("frames", message)


def _started(name: str, value: str | None, before: str = "") -> str:
    """An option of the server, and its value where it has one."""
    return f"{before}{STARTS[name]}{f' {_value(value)}' if value and name != 'cache_media' else ''}"


def _value(text: str) -> str:
    return _VALUES.get(text, text.strip("'\""))
