"""sha256 of large files that seldom change, such as weights: worked out once, then known by the file's size and times.

Knows a small JSON file in the cache folder. A file whose size, times or number on the disk differ is read again.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from .files import replaced
from .names import cache_folder, make_folder
from .plain_json import read_object

_MOST = 256  # files that are remembered
_SECOND_NS = 1_000_000_000
# changed so lately, a file may be changed again at what its clock calls the same time: of a system that keeps parts of
# a second, which tick every 10 ms at most, and of one that does not
_YOUNG_NS, _YOUNG_COARSE_NS = 100_000_000, 3 * _SECOND_NS


def known_digest(path: Path) -> str:
    """sha256 (hex) of a file. Raises OSError where it cannot be read."""
    memory, where, marks = _memory(), str(path.resolve()), _marks(path)
    held = _known(memory).get(where)
    if isinstance(held, list) and held[:-1] == marks and isinstance(held[-1], str):
        return held[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _marks(path) == marks:  # else it was written to meanwhile
        note_digest(path, digest)
    return digest


def note_digest(path: Path, digest: str) -> None:
    """Remember the sha256 (hex) of a file that its writer worked out. Raises OSError where it is not there."""
    memory, where, marks = _memory(), str(path.resolve()), _marks(path)
    if any(_is_young(changed) for changed in marks[1:3]):
        return
    known = _known(memory)
    known.pop(where, None)
    kept = dict(list(known.items())[-(_MOST - 1) :]) | {where: [*marks, digest]}
    with suppress(OSError):  # a folder that cannot be written costs the time again, nothing else
        make_folder(memory.parent)
        with replaced(memory) as partial:
            partial.write_text(json.dumps(kept), encoding="utf-8")


def _is_young(changed: int) -> bool:
    limit = _YOUNG_NS if changed % _SECOND_NS else _YOUNG_COARSE_NS
    return 0 <= time.time_ns() - changed < limit


def _memory() -> Path:
    return cache_folder() / "digests.json"


def _marks(path: Path) -> list[int]:
    """What changes with a file's contents. A writer can put its time of change back, but not the inode's (ctime)."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _known(memory: Path) -> dict[str, object]:
    try:
        return read_object(memory)
    except (OSError, ValueError):
        return {}
