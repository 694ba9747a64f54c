"""The bundled model is a toy, made for drawn clips: which models and clips these are, and what is said of others.

Knows the name in a file's header, which quantised copies keep, and the bytes of the bundled clips. Who says it, and
when, is for others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .gguf_header import GgufHeader
from .names import bundled_folder

_NAME = "aim-local-demo"  # general.name of the bundled model


def is_toy(header: GgufHeader) -> bool:
    """Whether this is the bundled model, or a copy of it."""
    return header.metadata.get("general.name") == _NAME


def is_demo_clip(digest: str) -> bool:
    """Whether a file with this sha256 (hex) is one of the bundled clips, wherever it lies."""
    folder = bundled_folder()
    return folder is not None and digest in _demo_clips(folder.parent / "clips")


def is_demo_file(path: Path) -> bool:
    """As is_demo_clip, of a file that was not read yet: one as large as none of them is not read either."""
    folder = bundled_folder()
    if folder is None or not path.is_file():
        return False
    clips = _demo_clips(folder.parent / "clips")
    return path.stat().st_size in clips.values() and hashlib.sha256(path.read_bytes()).hexdigest() in clips


@lru_cache(maxsize=1)
def _demo_clips(folder: Path) -> dict[str, int]:
    """sha256 (hex) and bytes of each."""
    return {hashlib.sha256(data).hexdigest(): len(data) for path in folder.glob("*.mp4") if (data := path.read_bytes())}


def toy_line(sources: Sequence[str]) -> str:
    """What is said of an answer about other clips than the toy's own. sources: their names, at least one."""
    names = Path(sources[0]).name + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    return (
        f"the bundled model is a toy that knows drawn shapes only: its answer about {names} means nothing; `aim-local "
        "models --known` lists real models, `aim-local pull NAME` gets one"
    )
