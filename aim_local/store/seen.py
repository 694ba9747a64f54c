"""Which model files were looked through before, so that it is done once for each.

A file is known by its head and size (`head_sha256`), its weights by the marks that the system keeps of a file. Knows a
small JSON file in the cache folder, which several processes may write at once; what looking through means is the
caller's affair (native/rehearsal.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .files import replaced
from .gguf_header import GgufHeader, head_sha256
from .names import bundled_folder, cache_folder, make_folder
from .plain_json import read_object

_MOST = 512  # models that are remembered
_here: dict[str, list[object]] = {}  # what this process saw


@dataclass(frozen=True)
class Look:
    """A model's files as they lie there now. by: who looks, such as a digest of the libraries: others look again."""

    by: str
    key: str
    marks: list[int]
    is_bundled: bool

    @classmethod
    def at(cls, headers: Sequence[GgufHeader], by: str) -> Look:
        """headers: of all its files. Raises OSError where they cannot be read."""
        heads = [head_sha256(header) for header in headers]
        stats = [header.path.stat() for header in headers]
        marks = [mark for stat in stats for mark in (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)]
        is_bundled = {header.path.parent for header in headers} == {bundled_folder()}  # made with this package
        return cls(by, hashlib.sha256(" ".join(heads).encode()).hexdigest(), marks, is_bundled)

    @property
    def knows_head(self) -> bool:
        """Whether all the heads were found right before."""
        return self.is_bundled or self._known()[:1] == [self.by]

    @property
    def knows_weights(self) -> bool:
        return self.is_bundled or self._known() == [self.by, *self.marks]

    def note(self, *, weights: bool) -> None:
        """They are right. A folder that cannot be written costs the time again, nothing else."""
        found: list[object] = [self.by, *(self.marks if weights else [])]
        _here[self.key] = found
        with suppress(OSError):
            memory = _memory()
            make_folder(memory.parent)
            known = _read()
            known.pop(self.key, None)
            kept = dict(list(known.items())[-(_MOST - 1) :]) | {self.key: found}
            with replaced(memory) as partial:
                partial.write_text(json.dumps(kept), encoding="utf-8")

    def _known(self) -> list[object]:
        found = _here.get(self.key) or _read().get(self.key)
        return found if isinstance(found, list) else []


def _memory() -> Path:
    return cache_folder() / "seen.json"


def _read() -> dict[str, object]:
    try:
        return read_object(_memory())
    except (OSError, ValueError):
        return {}
