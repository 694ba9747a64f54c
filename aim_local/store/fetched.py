"""Which files of the hub's cache were fetched by pulls of ours: only those are ours to remove.

Knows one file of the store, fetched.jsonl: a line per file, with its place (of the blob, where an entry of the cache is
a link) and its time of change, so that a file which another program fetched later into the same place is not taken for
ours. Without a line a file stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from ..bounded import bounded_bytes
from ..errors import AimError
from .files import replaced
from .locks import held, lock_beside
from .names import data_folder, make_folder
from .plain_json import MOST_BYTES, parsed


def note_fetched(entry: Path) -> None:
    """Remember that a pull fetched this file. entry: in a snapshot of the cache. Raises OSError."""
    record = _record()
    make_folder(record.parent)
    # one line, appended: pulls that run at the same time do not lose each other's
    line = json.dumps([str(entry.resolve()), entry.stat().st_mtime_ns]) + "\n"
    with _alone(record), record.open("a+b") as out:
        whole = out.seek(0, os.SEEK_END) == 0 or os.pread(out.fileno(), 1, out.tell() - 1) == b"\n"
        out.write((line if whole else f"\n{line}").encode())  # behind a line that a full disk cut off, too


def was_fetched(entry: Path) -> bool:
    """Whether a pull fetched the file that is there."""
    return entry.exists() and [str(entry.resolve()), entry.stat().st_mtime_ns] in _lines()


def forget_fetched(entries: Collection[Path]) -> None:
    """Entries and blobs that were removed. Raises OSError."""
    gone = {str(entry.resolve()) for entry in entries}
    if not any(line[0] in gone for line in _lines()):
        return
    with _alone(_record()):
        left = [line for line in _lines() if line[0] not in gone]
        with replaced(_record()) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in left), encoding="utf-8")


def _alone(record: Path) -> AbstractContextManager[object]:
    """Waits until no other process writes the record."""
    return held(lock_beside(record), AimError, wait=True, stays=False)


def _record() -> Path:
    return data_folder() / "fetched.jsonl"


def _lines() -> list[list[object]]:
    """A line that cannot be read is none: its file stays."""
    try:
        text = bounded_bytes(_record(), MOST_BYTES)
    except (OSError, ValueError):
        return []
    found = []
    for line in text.splitlines():
        try:
            value = parsed(line)
        except ValueError:
            continue
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            found.append(value)
    return found
