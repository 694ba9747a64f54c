"""Which bytes of a clip an answer is about, and whether they are there still.

Knows files. Where a run keeps this is answers.py's business.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import AimError, MediaError
from ..media.files import digest_file
from .questions import Clip

Seen = list[int | str]  # size in bytes, time of change in ns, sha256 in hex: plain values for JSON


def marks(clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """(size, time of change in ns) of each. Raises MediaError."""
    return [_marks(clip.path) for clip in clips]


def seen(clips: Sequence[Clip], before: Sequence[tuple[int, int]]) -> list[Seen]:
    """What was read of each. before: its marks when reading began. Raises MediaError where it changed meanwhile."""
    found = list[Seen]()
    for clip, earlier in zip(clips, before, strict=True):
        digest = digest_file(Path(clip.path))
        if _marks(clip.path) != earlier:
            raise MediaError(f"{clip.path}: changed while it was read; run it again when it is whole")
        found.append([*earlier, digest])
    return found


def first_changed(answered: Sequence[tuple[Sequence[Clip], Sequence[Seen]]]) -> Clip | None:
    """The first clip that is not what was seen; one with another time of change is read."""
    for clips, found in answered:
        for clip, (size, time, digest) in zip(clips, found, strict=False):
            try:
                now = _marks(clip.path)
                if now != (size, time) and (now[0] != size or digest_file(Path(clip.path)) != digest):
                    return clip
            except AimError:
                return clip
    return None


def _marks(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as e:
        raise MediaError(f"{path}: cannot be read ({e.strerror}); check its name and permissions") from e
    return stat.st_size, stat.st_mtime_ns
