"""The folder of a comparison: who uses it, what each cell was made from, and which of its lines count.

  lock, suite/, models/, reference/logits/<n>.npy, cells/<name>/{inputs.json, items.jsonl, log.txt}

Knows files. What an input or a line means is the runner's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...batch.files import good_lines, read_json, write_text
from ...errors import AimError
from ...results import Stats
from ...store.digests import known_digest
from ...store.files import sweep
from ...store.locks import held
from ...store.plain_json import fits, parsed, record_of
from .records import ItemResult

_LOCK = "lock"
_STATS = tuple(Stats().to_dict().items())
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


def safe_name(key: str) -> str:
    """A folder name for a cell's key: readable, and another one for every key."""
    readable = re.sub(r"[^A-Za-z0-9.=_+-]+", "-", key).strip("-.")[:80]
    return f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


class CellFolder:
    """One cell's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.items, self.log = path / "items.jsonl", path / "log.txt"
        self._inputs = path / "inputs.json"

    def adopt(self, inputs: dict[str, Any]) -> list[str]:
        """Makes the folder one for `inputs`. Results of other inputs are set aside; returns the names that differ."""
        self.path.mkdir(parents=True, exist_ok=True)
        known = read_json(self._inputs)
        changed = [] if known == inputs else [k for k in {**known, **inputs} if known.get(k) != inputs.get(k)]
        stale = bool(changed) and self.items.exists()
        if stale:
            os.replace(self.items, self.path / "items.previous.jsonl")
        if changed:
            write_text(self._inputs, json.dumps(inputs, indent=2))
        return changed if stale else []

    def rows(self) -> list[ItemResult]:
        """Finished items. A last line that was cut off is removed from the file."""
        return good_lines(self.items, _row)

    def keep(self, rows: Sequence[ItemResult]) -> None:
        """These lines and no others."""
        write_text(self.items, "".join(json.dumps(row.to_dict()) + "\n" for row in rows))


def _row(line: bytes) -> ItemResult | None:
    """None for a line that is not whole, or not what a comparison of this version writes."""
    try:
        row = record_of(ItemResult, parsed(line))
    except ValueError:
        return None
    told = all(fits(row.stats.get(name), float if isinstance(value, int | float) else str) for name, value in _STATS)
    if not told or len(row.kld or ()) != len(row.top1 or ()):
        return None
    sizes = [row.peak_rss_bytes, *(row.stats[name] for name, value in _STATS if isinstance(value, int | float))]
    return row if min(sizes) >= 0 else None  # counts, bytes and times


class Folder:
    """A comparison's folder, made where it is missing, and this process's alone as long as it is held. `with`.

    handles: file descriptors that a child inherits to hold it too. Raises AimError where another comparison has it,
    before anything in it is touched, and where it cannot be written. One that was made for nothing goes again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.handles = path, tuple[int, ...]()
        self._is_new = not path.exists()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        def busy(owner: str) -> AimError:
            return AimError(
                f"{self.path}: another comparison is running there, {owner}; wait for it, or name another folder "
                "with out=DIR"
            )

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.handles = self._stack.enter_context(held(self.path / _LOCK, busy))
        except OSError as e:
            raise _unwritable(self.path, e) from e
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if value is not None and self._is_new and os.listdir(self.path) == [_LOCK]:
            shutil.rmtree(self.path, ignore_errors=True)
        self._stack.close()


class Workspace:
    """What is in a folder that is held. Raises AimError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models, self.logits = path / "models", path / "reference" / "logits"
        try:
            self.logits.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise _unwritable(path, e) from e
        for folder in (path, self.models, self.logits, path / "cells", *(path / "cells").glob("*")):
            sweep(folder)

    def cell(self, key: str) -> CellFolder:
        return CellFolder(self.path / "cells" / safe_name(key))

    def sha256(self, path: Path) -> str:
        """Hex digest of a file's bytes, of all parts of a split GGUF. Raises OSError."""
        digests = [known_digest(part) for part in parts(path)]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _unwritable(path: Path, e: OSError) -> AimError:
    return AimError(f"{path} cannot be written ({e.strerror}); name another folder with out=DIR")


def parts(path: Path) -> list[Path]:
    """A GGUF's files: itself, or all parts of a split one."""
    shard = _SHARD.search(path.name)
    if not shard:
        return [path]
    stem, n = path.name[: shard.start()], int(shard[1])
    return [path.with_name(f"{stem}-{i:05d}-of-{n:05d}.gguf") for i in range(1, n + 1)]


def size_of(path: Path | None) -> int:
    """Bytes of a GGUF, all parts; 0 for none."""
    total = 0
    for part in parts(path) if path else []:
        with contextlib.suppress(OSError):
            total += part.stat().st_size
    return total
