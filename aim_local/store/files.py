"""Files and folders that appear whole or not at all. Knows nothing of what is in them.

Each is written under a name of its own beside its place (`.NAME.xxxxxxxx.aim-part`) and renamed when it is whole. Its
writer holds a lock on it, which ends with the process, however that ends: so what a killed writer left is told from
what is being written, and goes when something is written in that folder again.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .locks import Taken, take, take_if_free

PART = ".aim-part"  # the end of every name of what is not whole yet
_NEW, _OLD = "new", "old"  # in a folder's part: what is written, and what it takes the place of
_LONGEST = 50  # characters of a name that are in its part's name: a part's name has to be no longer than a name can be


class Part:
    """A file or folder in the making, to become `path`. Own it: `close()` or `with`, which leave nothing of it.

    at: where it is written. handle: the file, open to be written; -1 for a folder. Raises OSError.
    """

    def __init__(self, path: Path, *, is_folder: bool = False) -> None:
        sweep(path.parent)
        self.path = path
        self._own, self._lock = _made(path, is_folder)
        self.at = self._own / _NEW if is_folder else self._own
        self.handle = -1 if is_folder else self._lock.handle
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
        old = self._own / _OLD / self.path.name
        old.parent.mkdir()
        self.path.rename(old)
        try:
            self.at.rename(self.path)
        except BaseException:
            old.rename(self.path)
            raise

    def close(self) -> None:
        """Idempotent."""
        if self._lock.is_held:
            with suppress(OSError):
                _remove(self._own)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write to; it becomes `path` when the block ends well, else it is removed.

    Raises OSError.
    """
    with Part(path) as part:
        yield part.at
        os.chmod(part.at, 0o644)  # it was made so that its owner alone can read it
        part.keep()


def sweep(folder: Path) -> None:
    """Removes what killed writers left in a folder. What is being written stays."""
    with suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(PART) and entry.name[0] == "."]
        for name in names:
            _remove_dead(folder / name)


def _made(path: Path, is_folder: bool) -> tuple[Path, Taken]:
    """A new file or folder beside `path`, and this process's lock on it."""
    prefix = f".{path.name[:_LONGEST]}."
    while True:
        if is_folder:
            at = Path(tempfile.mkdtemp(prefix=prefix, suffix=PART, dir=path.parent))
            lock = take(os.open(at, os.O_RDONLY))
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=PART, dir=path.parent)
            at, lock = Path(name), take(handle)
        if lock.is_at(at):
            return at, lock
        lock.release()  # another process took it for a dead one's before it was locked


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
