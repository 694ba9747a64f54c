"""Which bytes of a clip an answer is about, and whether they are there still.

Knows files. Where a run keeps this is answers.py's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import AimError, MediaError
from ..media.files import digest_file
from .questions import Clip

Seen = list[int | str]  # size in bytes, times of change of contents and of inode in ns, sha256 in hex: plain for JSON
Marks = tuple[int, int, int]
_YOUNG_NS = 3_000_000_000  # changed so lately, a file may be changed again at what its clock calls the same time


def marks(clips: Sequence[Clip]) -> list[Marks]:
    """Size, and times of change of contents and of inode in ns, of each. Raises MediaError."""
    return [_marks(clip.path) for clip in clips]


def seen(clips: Sequence[Clip], before: Sequence[Marks]) -> list[Seen]:
    """What was read of each. before: its marks when reading began. Raises MediaError where it changed meanwhile."""
    found = list[Seen]()
    for clip, earlier in zip(clips, before, strict=True):
        digest = digest_file(Path(clip.path))
        if _marks(clip.path) != earlier:
            raise MediaError(f"{clip.path}: changed while it was read; run it again when it is whole")
        is_young = time.time_ns() - earlier[2] < _YOUNG_NS
        found.append([*earlier[:2], 0 if is_young else earlier[2], digest])  # 0: read again when asked for
    return found


def first_changed(answered: Sequence[tuple[Sequence[Clip], Sequence[Seen]]]) -> Clip | None:
    """The first clip that is not what was seen; one with other times of change is read."""
    for clips, found in answered:
        for clip, (*earlier, digest) in zip(clips, found, strict=False):
            try:
                now = list(_marks(clip.path))
                if now != earlier and (now[0] != earlier[0] or digest_file(Path(clip.path)) != digest):
                    return clip
            except AimError:
                return clip
    return None


def _marks(path: str) -> Marks:
    try:
        stat = os.stat(path)
    except OSError as e:
        raise MediaError(f"{path}: cannot be read ({e.strerror}); check its name and permissions") from e
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
