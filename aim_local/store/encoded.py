"""Encoded media on disk: what the vision tower made of a clip, so that another question does not encode it again.

An entry is one file: a fixed head with a checksum, visual rows before token merging, the frames as the tower sees them,
and a description in JSON. Whatever is wrong with an entry, it is not used and the clip is encoded anew; whatever is
wrong with the folder, nothing is kept, and that is told. Any number of processes may use a folder at once. Knows bytes
and plain numbers; what they mean is engine/'s business.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .files import Part, sweep
from .names import cache_folder, make_folder
from .plain_json import parsed_object

CAP = 2 << 30  # bytes of all entries together
SUFFIX = ".rows"
VERSION = 1
_MAGIC = b"AIMROWS\n"
_HEAD = struct.Struct("<8sIQQ32s4x")  # magic, version, bytes of arrays, bytes of JSON, sha256 of all behind; 64 bytes
_MAX_JSON = 64 << 20

Rows = NDArray[np.float32]
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Key:
    """What an entry is of: everything that its rows depend on, as plain values."""

    facts: Mapping[str, Any]

    @property
    def text(self) -> str:
        return json.dumps(self.facts, sort_keys=True)

    @property
    def name(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest() + SUFFIX


@dataclass(frozen=True, eq=False)
class Entry:
    """rows: one array per tile, float32 [n, n_embd]; several tiles may have the same.

    frames: uint8 [T, h, w, 3] as the tower sees them, None where they are not kept. facts: plain data of the caller.
    """

    rows: Sequence[Rows] = field(repr=False)
    frames: Frames | None = field(repr=False)
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """A file of the folder. used: when it was last read or written, seconds since 1970. source: of which clip."""

    path: Path
    n_bytes: int
    used: float
    source: str


class EncodedStore:
    """The entries of a folder. cap: bytes; what was not used for longest goes first."""

    def __init__(self, folder: Path | None = None, cap: int = CAP) -> None:
        self.folder = folder or clips_folder()
        self.cap = cap

    def find(self, key: Key) -> Entry | None:
        """The entry of `key`, where there is a sound one."""
        path = self.folder / key.name
        try:
            with path.open("rb") as file:
                entry = _read(file, key, self.cap)
        except (OSError, MemoryError):
            return None
        if entry:
            with suppress(OSError):
                os.utime(path)
        return entry

    def n_bytes(self, key: Key) -> int:
        """Size of the entry of `key`, which is not read: whether it is sound shows when it is used. 0 without one."""
        try:
            return (self.folder / key.name).stat().st_size
        except OSError:
            return 0

    def begin(self, key: Key) -> EntryWriter:
        """A new entry, filled while a clip is encoded. It is there once it is finished."""
        return EntryWriter(self, key)

    def entries(self) -> list[Stored]:
        """Finished entries, the last used first. Raises OSError where the folder cannot be read."""
        found = [_stored(path) for path in self._files()]
        return sorted((stored for stored in found if stored), key=lambda stored: stored.used, reverse=True)

    def clear(self) -> tuple[int, int]:
        """Removes everything; returns how many entries there were, and their bytes. Raises OSError."""
        entries = self.entries()
        for path in self._files():
            path.unlink(missing_ok=True)
        sweep(self.folder)
        return len(entries), sum(entry.n_bytes for entry in entries)

    def shrink(self, keep: Path) -> None:
        """Back under the cap."""
        kept = list[tuple[float, int, Path]]()
        for path in self._files():
            with suppress(OSError):
                stat = path.stat()
                if path != keep:
                    kept.append((stat.st_mtime, stat.st_size, path))
        with suppress(OSError):
            left = sum(size for _, size, _ in kept) + keep.stat().st_size - self.cap
            for _, size, path in sorted(kept):
                if left <= 0:
                    break
                path.unlink(missing_ok=True)
                left -= size

    def _files(self) -> Iterator[Path]:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.suffix == SUFFIX:
                yield path


class EntryWriter:
    """An entry in the making: rows as they are encoded, the rest at the end. Never raises for the disk.

    problem: why nothing is kept, "" while all is well.
    """

    def __init__(self, store: EncodedStore, key: Key) -> None:
        self._store, self._key = store, key
        self._file: BinaryIO | None = None
        self._part: Part | None = None
        self._digest, self._n_bytes = hashlib.sha256(), 0
        self.problem = ""
        self._shapes: list[tuple[int, ...]] = []
        self._numbers: dict[int, int] = {}  # id of an array -> its number
        self._held: list[Rows] = []  # ids are of arrays that live
        self._tiles: dict[int, int] = {}

    def add(self, tile: int, rows: Rows) -> None:
        """The rows of a tile; those that were given before are written once."""
        number = self._numbers.get(id(rows))
        if number is None:
            number = self._numbers[id(rows)] = len(self._shapes)
            self._held.append(rows)
            self._shapes.append(rows.shape)
            self._write(np.ascontiguousarray(rows, "<f4").data.cast("B"))
        self._tiles[tile] = number

    def finish(self, tiles: Sequence[int], frames: Frames | None, facts: Mapping[str, Any]) -> None:
        """tiles: those of the clip, in order. Afterwards the entry is there, or `problem` says why not."""
        if frames is not None:
            self._write(np.ascontiguousarray(frames).data.cast("B"))
        described = {
            "key": self._key.facts,
            "rows": self._shapes,
            "tiles": [self._tiles[tile] for tile in tiles],
            "frames": list(frames.shape) if frames is not None else None,
            "facts": facts,
        }
        n_arrays, text = self._n_bytes, json.dumps(described).encode()
        self._write(memoryview(text))
        if self._file is None or self._part is None or self.problem:
            self.drop()
            return
        try:
            self._file.seek(0)
            self._file.write(_HEAD.pack(_MAGIC, VERSION, n_arrays, len(text), self._digest.digest()))
            self._file.flush()
            self._part.keep(sync=False)  # what a power cut takes of it shows in its checksum
        except OSError as e:
            self._fail(e)
            return
        self.drop()
        self._store.shrink(self._part.path)

    def forget(self) -> None:
        """No rows come again that were given before."""
        self._held.clear()
        self._numbers.clear()

    def drop(self) -> None:
        """Nothing is kept of what is not finished. Idempotent."""
        file, self._file = self._file, None
        self._held.clear()
        with suppress(OSError):
            if file:
                file.close()
        if self._part:
            self._part.close()

    def _write(self, data: memoryview) -> None:
        if self.problem:
            return
        try:
            if self._file is None:
                self._open()
            assert self._file is not None, "just opened"
            self._file.write(data)
        except OSError as e:
            self._fail(e)
            return
        self._digest.update(data)
        self._n_bytes += len(data)
        if self._n_bytes > self._store.cap:
            self.problem = f"what was encoded takes more than the cache's {self._store.cap / 2**30:.3g} GiB"
            self.drop()

    def _open(self) -> None:
        folder = self._store.folder
        make_folder(folder, 0o700)  # what people look at is private
        self._part = Part(folder / self._key.name)
        self._file = os.fdopen(self._part.handle, "wb", closefd=False)
        self._file.write(bytes(_HEAD.size))

    def _fail(self, e: OSError) -> None:
        self.problem = f"{self._store.folder}: {e.strerror or e}"
        self.drop()


def clips_folder() -> Path:
    return cache_folder() / "clips"


def sweep_clips() -> None:
    """Removes what processes that were ended while they stored a clip have left. Never raises for the disk."""
    sweep(clips_folder())


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(file: BufferedReader, key: Key, cap: int) -> Entry | None:
    """A sound entry of `key`. None for anything else: nothing of a file is believed before its checksum fits."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    magic, version, n_arrays, n_text, wanted = _HEAD.unpack(head)
    n_bytes = os.fstat(file.fileno()).st_size - _HEAD.size
    if magic != _MAGIC or version != VERSION or n_text > _MAX_JSON or n_bytes != n_arrays + n_text or n_arrays > cap:
        return None
    if head != _HEAD.pack(magic, version, n_arrays, n_text, wanted):  # the padding
        return None
    body = bytearray(n_bytes)
    if file.readinto(body) != n_bytes or hashlib.sha256(body).digest() != wanted:
        return None
    try:
        described = parsed_object(body[n_arrays:])
        if Key(described["key"]).text != key.text:
            return None
        return _entry(described, memoryview(body)[:n_arrays])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _entry(described: dict[str, Any], arrays: memoryview) -> Entry:
    """Raises ValueError, KeyError, TypeError, IndexError for what no writer wrote."""
    at, unique = 0, list[Rows]()
    for shape in described["rows"]:
        n, n_embd = _sizes(shape, 2, (len(arrays) - at) // 4)
        unique.append(np.frombuffer(arrays, "<f4", n * n_embd, at).reshape(n, n_embd))
        at += 4 * n * n_embd
    frames = None
    if described["frames"] is not None:
        sizes = _sizes(described["frames"], 4, len(arrays) - at)
        frames = np.frombuffer(arrays, np.uint8, math.prod(sizes), at).reshape(sizes)
        at += math.prod(sizes)
    tiles = described["tiles"]
    if at != len(arrays) or not all(type(tile) is int and 0 <= tile < len(unique) for tile in tiles):
        raise ValueError("arrays and their description do not fit together")
    return Entry([unique[tile] for tile in tiles], frames, dict(described["facts"]))


def _sizes(shape: Any, n: int, n_left: int) -> tuple[int, ...]:
    """n_left: numbers that are there."""
    if len(shape) != n or not all(type(size) is int and size > 0 for size in shape) or math.prod(shape) > n_left:
        raise ValueError(f"no shape of {n} numbers above 0 that fits")
    return tuple(shape)


def _stored(path: Path) -> Stored | None:
    """For the listing: read from the file's description, unchecked. None where the file went meanwhile."""
    try:
        stat = path.stat()
        with path.open("rb") as file:
            magic, _, n_arrays, n_text, _ = _HEAD.unpack(file.read(_HEAD.size))
            file.seek(_HEAD.size + n_arrays)
            source = str(parsed_object(file.read(min(n_text, _MAX_JSON)))["facts"]["source"])
            return Stored(path, stat.st_size, stat.st_mtime, source if magic == _MAGIC else "damaged")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, struct.error, OverflowError):
        return Stored(path, stat.st_size, stat.st_mtime, "damaged")
