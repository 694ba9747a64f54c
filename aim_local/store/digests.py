"""sha256 of large files that seldom change, such as weights: worked out once, then known by the file's size and times.

Knows a small JSON file in the cache folder. A file whose size, times or number on the disk differ is read again.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from .files import replaced
from .names import cache_folder

_MOST = 256  # files that are remembered


def known_digest(path: Path) -> str:
    """sha256 (hex) of a file. Raises OSError where it cannot be read."""
    stat, where = path.stat(), str(path.resolve())
    marks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    memory = cache_folder() / "digests.json"
    known = _known(memory)
    held = known.get(where)
    if isinstance(held, list) and held[:-1] == marks and isinstance(held[-1], str):
        return held[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known.pop(where, None)
    kept = dict(list(known.items())[-(_MOST - 1) :]) | {where: [*marks, digest]}
    with suppress(OSError):  # a folder that cannot be written costs the time again, nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        with replaced(memory) as partial:
            partial.write_text(json.dumps(kept), encoding="utf-8")
    return digest


def _known(memory: Path) -> dict[str, object]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
