"""A suite drawn with the bundled generator: clips the demo model never saw, as files, with suite.jsonl beside them.

What a clip shows, and that its answers are balanced, is aim_local.demo's business.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ...demo import PLAIN, Clip, World, held_out, write_clip
from ...errors import SuiteError, UsageError
from ...store.files import replaced
from ...store.toy import is_demo_file
from .records import Suite

SUITE_FILE = "suite.jsonl"
_CLIPS = "clips"
_OURS = re.compile(rf"{_CLIPS}/\d+-[a-z]+-[0-9a-f]{{8}}\.mp4")


def draw_demo_suite(folder: Path, n: int = 200, seed: int = 0, world: World = PLAIN) -> Path:
    """n held-out clips of a demo world as mp4 and suite.jsonl in `folder`; returns the path of suite.jsonl.

    The same seed gives the same suite, byte for byte with the same PyAV (its x264 makes the mp4 files: a comparison
    across machines needs one version of it, the suite's sha256 tells). suite.jsonl is written last, so a folder that
    has it is complete; clips that are there are kept, so a drawing that was interrupted is completed.

    Raises:
        UsageError: n below 1 or a negative seed.
        SuiteError: the folder cannot be written, or has a suite.jsonl that is not a drawn one.
    """
    if n < 1 or seed < 0:
        raise UsageError(f"a demo suite needs 1 or more clips and a seed of 0 or more, got n={n}, seed={seed}")
    folder = Path(folder)
    target = folder / SUITE_FILE
    clips = [(_name(i, clip), clip) for i, clip in enumerate(held_out(n, seed, world))]
    text = "".join(_line(i, name, clip) for i, (name, clip) in enumerate(clips))
    try:
        complete = _has(target, text)
        for name, clip in clips:
            if not (folder / name).is_file():
                write_clip(clip, folder / name, side=world.side)
        if not complete:
            with replaced(target) as partial:
                partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as e:
        raise SuiteError(f"{folder}: the demo suite cannot be written ({e.strerror}); name another folder") from e
    return target


def beyond_demo(suite: Suite) -> tuple[str, ...]:
    """Media of a suite that the bundled model was not made for: neither drawn here nor one of its clips."""
    media = dict.fromkeys(path for item in suite.items for path in item.media)
    return tuple(str(path) for path in media if not _is_demo(path))


def _is_demo(path: Path) -> bool:
    return bool(_OURS.fullmatch("/".join(path.parts[-2:]))) or is_demo_file(path)


def _name(i: int, clip: Clip) -> str:
    # the scene is in the name: a clip that another seed or version drew is not mistaken for this one
    drawn = hashlib.sha256(repr(clip.scene).encode()).hexdigest()[:8]
    return f"{_CLIPS}/{i:04d}-{clip.family}-{drawn}.mp4"


def _line(i: int, name: str, clip: Clip) -> str:
    row: dict[str, Any] = {
        "id": f"{i:04d}-{clip.family}",
        "media": name,
        "question": clip.question,
        "answer": clip.answer,
        "tags": [clip.family],
    }
    return json.dumps(row) + "\n"


def _has(target: Path, text: str) -> bool:
    """Whether suite.jsonl is there as it should be. SuiteError where it is somebody's own: it is not written over."""
    if not target.exists():
        return False
    held = target.read_bytes()
    if held == text.encode():
        return True
    if not all(_is_drawn(line) for line in held.splitlines()):
        raise SuiteError(f"{target}: is there and is no drawn demo suite; it is left alone, name another folder")
    return False


def _is_drawn(line: bytes) -> bool:
    try:
        return bool(_OURS.fullmatch(json.loads(line)["media"]))
    except (ValueError, TypeError, KeyError):
        return False
