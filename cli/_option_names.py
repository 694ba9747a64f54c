"""Messages of the library in the words of the command line: `n_ctx` is --ctx there, `n_frames=8` is --frames 8.

The library names its own fields, for those who call it from Python; here is the one table from fields to options. Knows
text, and asks nobody.
"""

from __future__ import annotations

import re

from aim_local.errors import without_python_only

# fields of LoadConfig, VisualTokenConfig, GenerateConfig, FrameSampling and Suite -> options; those that are not here
# have no option
OPTIONS = {
    "n_ctx": "--ctx",
    "n_threads": "--threads",
    "n_gpu_layers": "--gpu-layers",
    "type_k": "--type-k",
    "type_v": "--type-v",
    "flash_attn": "--flash-attn",
    "vision_precision": "--vision-precision",
    "prefill_precision": "--prefill-precision",
    "vision_merge": "--vision-merge",
    "vision_merge_depth": "--vision-merge-depth",
    "frame_tokens": "--frame-tokens",
    "reuse_frames": "--vision-reuse",
    "max_pixels": "--max-pixels",
    "merge_retain": "--keep",
    "merge_by": "--merge",
    "merge_window": "--window",
    "prune_layers": "--prune",
    "importance": "--importance",
    "weigh": "--weigh",
    "max_tokens": "--max-tokens",
    "temperature": "--temp",
    "seed": "--seed",
    "n_frames": "--frames",
    "number of frames": "--frames",
    "fps": "--fps",
    "start": "--start",
    "end": "--end",
    "kld_tokens": "--kld-tokens",
    "rpc": "--rpc",
    "mmproj": "--mmproj",
    "tokens": "--tokens",
    "port": "--port",
    "rounds": "--rounds",
    "warm_up": "--warm-up",
    "n_decode": "--n-decode",
}
WORDS = {"None": "off", "True": "on", "False": "off"}  # values as they are written behind an option
_LIKE_WORDS = frozenset(name for name in OPTIONS if "_" not in name)  # replaced only where a message speaks of one
_NAMES = "|".join(sorted(OPTIONS, key=len, reverse=True))
_FIELDS = "|".join(name for name in sorted(OPTIONS, key=len, reverse=True) if name not in _LIKE_WORDS)
_BESIDE = re.compile(rf"\b(?:{_NAMES}) \((--[\w-]+)\)|(--[\w-]+ ?[\w.-]*) \((?:{_NAMES})(?:=[^)]*)?\)")
_SET = re.compile(rf"""(?<![\w/.:'"-])({_NAMES})=(None|True|False|"[^"]*"|'[^']*'|[\w.]+)""")
_SAID = re.compile(rf"(?:(?<=^)|(?<=: )|(?<= after )|(?<=; ))({_NAMES})(?= (?:is|has|was|rises|names|\d))")
_FIELD = re.compile(rf"""(?<![\w/.'"=-])({_FIELDS})(?![\w/=-]|\.\w)""")
_TWICE = re.compile(r"(--([\w-]+)): \1(?= )|\b([\w-]+): --\3(?= )")


def in_options(message: str) -> str:
    """A message with options in the place of the library's fields. Text forms that hold fields stay as they are."""
    if message.startswith("load option"):  # of compare --loads, where fields are what is written
        return message
    message = without_python_only(message).replace("cache_media=False", "--no-cache")
    message = _BESIDE.sub(lambda found: found[1] or found[2], message)
    message = _SET.sub(lambda found: f"{OPTIONS[found[1]]} {_value(found[2])}", message)
    message = _SAID.sub(lambda found: OPTIONS[found[1]], message)
    message = _FIELD.sub(lambda found: OPTIONS[found[1]], message)
    return _TWICE.sub(lambda found: found[1] or found[3], message)


def _value(text: str) -> str:
    return WORDS.get(text, text.strip("'\""))
