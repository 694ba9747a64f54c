"""Files and folders that appear whole or not at all. Knows nothing of what is in them.

Each is written under a name of its own beside its place (`.NAME.xxxxxxxx.aim-part`) and renamed when it is whole. Its
writer holds a lock on it, which ends with the process, however that ends: so what a killed writer left is told from
what is being written, and goes when something is written in that folder again.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .locks import LOCK, Taken, take, take_if_free

PART = ".aim-part"  # the end of every name of what is not whole yet
_NEW, _OLD = "new", "old"  # in a folder's part: what is written, and what it takes the place of
_LONGEST = 50  # characters of a name that are in its part's name: a part's name has to be no longer than a name can be


class Part:
    """A file or folder in the making, to become `path`. Own it: `close()` or `with`, which leave nothing of it.

    at: where it is written. handle: the file, open to be written; -1 for a folder. Raises OSError.
    """

    def __init__(self, path: Path, *, is_folder: bool = False) -> None:
        self.path, self.at, self.handle = path, path, -1
        self._own: Path | None = None
        self._lock: Taken | None = None
        sweep(path.parent)
        try:
            self._make(is_folder)
        except BaseException:  # a Ctrl-C, too
            self.close()
            raise

    def _make(self, is_folder: bool) -> None:
        """Its name is known before it is there: wherever this is interrupted, `close` finds it."""
        while self._lock is None:
            own = self.path.with_name(f".{self.path.name[:_LONGEST]}.{secrets.token_hex(4)}{PART}")
            if own.exists():
                continue
            self._own = own
            if is_folder:
                own.mkdir(mode=0o700)
                lock = take(os.open(own, os.O_RDONLY))
            else:
                lock = take(os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._lock = lock
            if not lock.is_at(own):  # another process took it for a dead one's before it was locked
                lock.release()
                self._lock = None
        self.at, self.handle = (own / _NEW, -1) if is_folder else (own, lock.handle)
        if is_folder:
            self.at.mkdir()

    def keep(self, *, sync: bool = True) -> None:
        """It is whole, and takes the place of `path`. sync: a file is on the disk first. Raises OSError."""
        if self.handle >= 0:
            if sync:
                os.fsync(self.handle)
            os.replace(self.at, self.path)
        elif self.path.exists():
            self._exchange()
        else:
            self.at.rename(self.path)

    def _exchange(self) -> None:
        """An earlier folder goes when the new one is there; where this process ends between, `sweep` puts it back."""
        old = self.at.parent / _OLD / self.path.name
        old.parent.mkdir()
        self.path.rename(old)
        try:
            self.at.rename(self.path)
        except BaseException:
            old.rename(self.path)
            raise

    def close(self) -> None:
        """Idempotent."""
        own, lock = self._own, self._lock
        if own is not None:
            with suppress(OSError):
                _remove(own)
        self._own = self._lock = None
        if lock is not None:
            lock.release()

    def __del__(self) -> None:  # an interrupt came before anybody owned it
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write to; it becomes `path` when the block ends well, else it is removed.

    Raises OSError.
    """
    with named(path), Part(path) as part:
        yield part.at
        os.chmod(part.at, 0o644)  # it was made so that its owner alone can read it
        part.keep()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError of what is open already, as that of a full disk, names no file; it names `path` then."""
    try:
        yield
    except OSError as e:
        if e.filename is None and e.errno is not None:
            e.filename = os.fspath(path)
        raise


def sweep(folder: Path) -> None:
    """Removes what killed writers left in a folder, their locks too. What is being written stays."""
    with suppress(OSError):
        names = [
            entry.name for entry in os.scandir(folder) if entry.name.endswith((PART, LOCK)) and entry.name[0] == "."
        ]
        for name in names:
            _remove_dead(folder / name)


def _remove_dead(path: Path) -> None:
    with suppress(OSError):
        lock = take_if_free(path)
        if lock is None:
            return
        try:
            if lock.is_at(path):
                _remove(path)
        finally:
            lock.release()


def _remove(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        for old in (path / _OLD).glob("*"):
            if not (path.parent / old.name).exists():
                old.rename(path.parent / old.name)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
