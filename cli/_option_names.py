"""Messages of the library in the words of the command line: `n_ctx` is --ctx there, `n_frames=8` is --frames 8.

The library names its own fields, for those who call it from Python; here is the one table from fields to options. Knows
text, and asks nobody.
"""

from __future__ import annotations

import re

from aim_local.errors import without_python_only

# fields of LoadConfig, VisualTokenConfig, GenerateConfig, FrameSampling, Suite and the configs of the lab and the
# converter, and arguments of their functions -> options; those that are not here have no option
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
    "rpc": "--rpc",
    "mmproj": "--mmproj",
    "tokens": "--tokens",
    "ttft": "--ttft",
    "port": "--port",
    "rounds": "--rounds",
    "warm_up": "--warm-up",
    "n_decode": "--n-decode",
    "text_type": "--type",
    "vision_type": "--vision-type",
    "types": "--types",
    "vision_types": "--vision-types",
    "vision_tower": "--vision-tower",
    "media_root": "--media",
    "kld_tokens": "--kld-tokens",
    "memory_limit": "--memory-limit",
    "margin": "--margin",
    "give_up": "--give-up",
    "stock_folder": "--stock",
    "skip_vision": "--skip-vision",
    "stock": "--against-stock",
    "video": "--video",
    "out": "--out",
    "name": "--name",
}
WORDS = {"None": "off", "True": "on", "False": "off"}  # values as they are written behind an option
# what is a flag, with the value that it stands for
FLAGS = {"cache_media=False": "--no-cache", "kld_tokens=0": "--no-kld", "skip_vision=True": "--skip-vision"}
_LIKE_WORDS = frozenset(name for name in OPTIONS if "_" not in name)  # replaced only where a message speaks of one
_PLAIN = frozenset({"out", "name", "video", "stock"})  # these only with a value, or as what is to be left out
_NAMES = "|".join(sorted(OPTIONS, key=len, reverse=True))
_FIELDS = "|".join(name for name in sorted(OPTIONS, key=len, reverse=True) if name not in _LIKE_WORDS)
_SPOKEN = "|".join(name for name in sorted(OPTIONS, key=len, reverse=True) if name not in _PLAIN)
_BESIDE = re.compile(rf"\b(?:{_NAMES}) \((--[\w-]+)\)|(--[\w-]+ ?[\w.-]*) \((?:{_NAMES})(?:=[^)]*)?\)")
_SET = re.compile(rf"""(?<![\w/.:'"?&-])({_NAMES})=(None|True|False|"[^"]*"|'[^']*'|[\w.]+)""")
_SAID = re.compile(rf"(?:(?<=^)|(?<=: )|(?<= after )|(?<=; ))({_SPOKEN})(?= (?:is|has|was|rises|names|\d))")
_FIELD = re.compile(rf"""(?<![\w/.'"=-])({_FIELDS})(?![\w/=-]|\.\w)""")
_FLAG = re.compile(rf"""(?<![\w/.:'"?&-])(?:{"|".join(FLAGS)})(?![\w.])""")
_LEFT = re.compile(rf"(?<=\bleave )(?:{_NAMES})(?: (?:and|or) (?:{_NAMES}))*(?= out\b)")
_NAME = re.compile(rf"\b(?:{_NAMES})\b")
_OF_A_FILE = re.compile(r"(?:.* )?line \d+: ")  # of questions: its keys are what is written
_TWICE = re.compile(r"(--([\w-]+)): \1(?= )|\b([\w-]+): --\3(?= )")


def in_options(message: str) -> str:
    """A message with options in the place of the library's fields. Text forms that hold fields stay as they are."""
    if message.startswith("load option") or _OF_A_FILE.match(message):  # of compare --loads: fields are what is written
        return message
    message = _FLAG.sub(lambda found: FLAGS[found[0]], without_python_only(message))
    message = _LEFT.sub(lambda found: _NAME.sub(lambda name: OPTIONS[name[0]], found[0]), message)
    message = _BESIDE.sub(lambda found: found[1] or found[2], message)
    message = _SET.sub(lambda found: f"{OPTIONS[found[1]]} {_value(found[2])}", message)
    message = _SAID.sub(lambda found: OPTIONS[found[1]], message)
    message = _FIELD.sub(lambda found: OPTIONS[found[1]], message)
    return _TWICE.sub(lambda found: found[1] or found[3], message)


def _value(text: str) -> str:
    return WORDS.get(text, text.strip("'\""))
