"""Encoded media on disk: the same bits come back, and whatever is wrong with a file or a folder, it is not used."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aim_local.store.encoded import CAP, EncodedStore, EntryWriter, Key

KEY = Key({"media": "abc", "sampling": [4, None, None, None]})


def rows(seed: int, n: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 8), np.float32)


def write(store: EncodedStore, key: Key = KEY, n: int = 3) -> EntryWriter:
    writer = store.begin(key)
    for tile in range(n):
        writer.add(tile, rows(tile))
    writer.finish(range(n), np.full((n, 2, 2, 3), 7, np.uint8), {"kind": "video", "source": "clip.mp4"})
    return writer


@pytest.fixture
def store(tmp_path: Path) -> EncodedStore:
    return EncodedStore(tmp_path / "cache" / "clips")


def files(store: EncodedStore) -> list[str]:
    return sorted(path.suffix for path in store.folder.iterdir()) if store.folder.is_dir() else []


def test_what_was_written_comes_back(store: EncodedStore) -> None:
    assert store.find(KEY) is None
    assert write(store).problem == ""
    entry = store.find(KEY)
    assert entry
    assert all(np.array_equal(found, rows(i)) for i, found in enumerate(entry.rows))
    assert entry.frames is not None
    assert entry.frames.tolist() == np.full((3, 2, 2, 3), 7).tolist()
    assert entry.facts == {"kind": "video", "source": "clip.mp4"}
    assert store.find(Key({**KEY.facts, "media": "abd"})) is None


def test_shared_rows_are_written_once(store: EncodedStore) -> None:
    writer, same = store.begin(KEY), rows(0, 1000)
    for tile in range(10):
        writer.add(tile, same)
    writer.finish([3, 1], None, {"source": "x"})
    (path,) = store.folder.iterdir()
    assert path.stat().st_size < 1.2 * same.nbytes
    entry = store.find(KEY)
    assert entry
    assert [r is entry.rows[0] for r in entry.rows] == [True, True]


def test_only_the_owner_may_read(store: EncodedStore) -> None:
    """Guards what people look at."""
    write(store)
    (path,) = store.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) & 0o077 == 0


def test_damage_of_every_kind(store: EncodedStore) -> None:
    """Guards against believing a file: any flipped byte, any cut, anything behind, another's entry, no entry at all."""
    write(store)
    (path,) = store.folder.iterdir()
    sound = path.read_bytes()
    for at in [*range(72), *range(72, len(sound), 41), len(sound) - 1]:
        broken = bytearray(sound)
        broken[at] ^= 1 + at % 255
        path.write_bytes(broken)
        assert store.find(KEY) is None, f"byte {at} of {len(sound)}"
    for cut in (0, 1, 63, 64, 65, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:cut])
        assert store.find(KEY) is None, f"cut to {cut}"
    path.write_bytes(sound + b"x")
    assert store.find(KEY) is None
    path.write_bytes(b"\0" * len(sound))
    assert store.find(KEY) is None
    path.write_bytes(sound)
    other = Key({"media": "other"})
    os.replace(path, store.folder / other.name)
    assert store.find(other) is None, "a sound entry under another's name"
    (store.folder / KEY.name).mkdir()
    assert store.find(KEY) is None
    assert write(store).problem != "", "a folder stands in the way"


@pytest.mark.parametrize("change", ["shape", "tile", "text", "key", "frames"])
def test_descriptions_that_lie(store: EncodedStore, change: str) -> None:
    """Guards sizes and types behind a checksum that fits."""
    import hashlib
    import struct

    write(store)
    (path,) = store.folder.iterdir()
    data, head = path.read_bytes(), struct.Struct("<8sIQQ32s4x")
    magic, version, n_arrays, _, _ = head.unpack(data[: head.size])
    told = json.loads(data[head.size + n_arrays :])
    lie = {"shape": {"rows": [[6, 9]] * 3}, "tile": {"tiles": [0, 1, 3]}, "text": {"tiles": "012"}, "key": {"key": 1}}
    told |= lie.get(change, {"frames": [3, 2, 2, 0]})
    body = data[head.size : head.size + n_arrays] + json.dumps(told).encode()
    packed = head.pack(magic, version, n_arrays, len(body) - n_arrays, hashlib.sha256(body).digest())
    path.write_bytes(packed + body)
    assert store.find(KEY) is None


def test_the_oldest_use_goes_first(tmp_path: Path) -> None:
    assert CAP == 2 * 2**30
    one = EncodedStore(tmp_path / "one")
    write(one)
    size = one.entries()[0].n_bytes
    store = EncodedStore(tmp_path / "clips", cap=3 * size + size // 2)
    keys = [Key({"media": str(i)}) for i in range(5)]
    for i, key in enumerate(keys[:3]):
        write(store, key)
        os.utime(store.folder / key.name, (i + 1, i + 1))
    assert store.find(keys[0])  # used just now
    for key in keys[3:]:
        write(store, key)
    assert [bool(store.find(key)) for key in keys] == [True, False, False, True, True]


def test_more_than_fits_is_told(tmp_path: Path) -> None:
    small = EncodedStore(tmp_path, cap=100)
    assert "takes more than the cache's" in write(small).problem
    assert files(small) == []


@pytest.mark.parametrize("call", ["write", "replace", "mkstemp", "mkdir"])
def test_full_disk_and_read_only_folder(store: EncodedStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Guards against a failed entry that stays, and against an exception for something that is only convenient."""

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        real = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda fd, mode, closefd: Full(real(fd, mode, closefd=closefd)))
    else:
        target = {"replace": os, "mkdir": Path, "mkstemp": __import__("tempfile")}[call]
        monkeypatch.setattr(target, call, fail)
    assert write(store).problem == f"{store.folder}: No space left on device"
    monkeypatch.undo()
    assert files(store) == []
    assert write(store).problem == ""


class Full:
    """A file on a disk that is full after 100 bytes."""

    def __init__(self, file: object) -> None:
        self._file, self._n = file, 0

    def write(self, data: bytes) -> None:
        self._n += len(data)
        if self._n > 100:
            raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self._file.close()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_encoded_store import *
store = EncodedStore(Path(sys.argv[1]))
writer = store.begin(KEY)
writer.add(0, rows(0, 50000))
print("begun", flush=True)
import time
time.sleep(60)
"""


def test_killed_in_the_middle(store: EncodedStore) -> None:
    """kill -9 leaves a part that nobody takes for an entry; it goes with the next entry."""
    here = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.folder), str(here)], stdout=subprocess.PIPE, cwd=here.parent
    )
    assert child.stdout
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert files(store) == [".aim-part"]
    assert store.find(KEY) is None
    write(store)
    assert files(store) == [".rows"]


def _many(folder: Path, seed: int) -> int:
    store, found = EncodedStore(folder, cap=20_000), 0
    for i in range(60):
        key = Key({"media": str((i * 7 + seed) % 9)})
        entry = store.find(key)
        found += entry is not None
        assert entry is None or np.array_equal(entry.rows[2], rows(2))
        if entry is None:
            assert write(store, key).problem == ""
    return found


def test_processes_at_once(store: EncodedStore) -> None:
    """Guards readers and writers of one folder that is always over its cap: right bits or none."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(_many, [(store.folder, seed) for seed in range(3)])
    print(f"\n  found {found} of 60 each")
    assert sum(found) > 0
    assert set(files(store)) == {".rows"}


def test_listing_and_clearing(store: EncodedStore) -> None:
    write(store)
    (store.folder / f"x{Path(KEY.name).suffix}").write_bytes(b"nothing")
    assert sorted(entry.source for entry in store.entries()) == ["clip.mp4", "damaged"]
    assert store.clear()[0] == 2
    assert files(store) == []
    assert store.clear() == (0, 0)
