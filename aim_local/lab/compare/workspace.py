"""The folder of a comparison: who uses it, what each cell was made from, and which of its lines count.

  lock, hashes.json, models/, reference/logits/<n>.npy, cells/<name>/{inputs.json, items.jsonl, log.txt}

Knows files. What an input or a line means is the runner's business.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...batch.files import good_lines, held, read_json, write_text
from ...errors import AimError
from .records import ItemResult

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
    try:
        return ItemResult(**json.loads(line))
    except (ValueError, TypeError):
        return None


class Workspace:
    """The folder `path`, made where it is missing. Raises AimError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models, self.logits = path / "models", path / "reference" / "logits"
        try:
            self.logits.mkdir(parents=True, exist_ok=True)
            write_text(path / ".writable", "")
            (path / ".writable").unlink()
        except OSError as e:
            raise AimError(f"{path} cannot be written ({e.strerror}); name another folder with --out") from e
        self._hashes = read_json(path / "hashes.json")
        self._hashing = threading.Lock()

    def cell(self, key: str) -> CellFolder:
        return CellFolder(self.path / "cells" / safe_name(key))

    # --- one user at a time ---

    @contextmanager
    def locked(self) -> Iterator[tuple[int, ...]]:
        """Holds the folder; yields file descriptors that a child must inherit to hold it too. Raises AimError."""

        def busy(owner: str) -> str:
            return (
                f"{self.path}: another comparison is running there (process {owner}); "
                "wait for it, or name another folder with --out"
            )

        with held(self.path / "lock", busy) as fds:
            yield fds

    # --- hashes ---

    def sha256(self, path: Path) -> str:
        """Hex digest of a file's bytes, of all parts of a split GGUF. Remembered by size and time of change.

        Raises OSError.
        """
        with self._hashing:
            digests = [self._sha256(part) for part in parts(path)]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def _sha256(self, path: Path) -> str:
        stat, name = path.stat(), str(path.resolve())
        known = self._hashes.get(name)
        if isinstance(known, list) and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._hashes[name] = [stat.st_size, stat.st_mtime_ns, digest]
        write_text(self.path / "hashes.json", json.dumps(self._hashes, indent=1))
        return digest


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
