"""A folder of the server's own with the system's temporary files; one that a killed server left behind goes.

Knows the file system. Each server holds a lock on its folder, which ends with the process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":  # there, what a killed server leaves stays
    import fcntl

_PREFIX = "aim-local-files-"
_YOUNG_S = 60.0  # one that is being made is not locked yet


class PrivateFolder:
    """Its owner alone can read it. parent: where it is made; None: with the system's temporary files."""

    def __init__(self, parent: Path | None = None) -> None:
        remove_abandoned(Path(parent or tempfile.gettempdir()))
        self._parent, self._lock, self._closed = parent, threading.Lock(), False
        self._make()

    @property
    def path(self) -> Path:
        """Another folder where somebody removed it: under its old name another user's may be by now. Raises OSError."""
        with self._lock:
            if not self._closed and not self._is_there():
                self._let_go()
                self._make()
            return self._path

    def close(self) -> None:
        """It goes, with all that is in it. Idempotent."""
        with self._lock:
            self._closed = True
            if self._is_there():
                shutil.rmtree(self._path, ignore_errors=True)
            self._let_go()

    def _make(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))  # mode 0700
        self._handle = _locked(self._path)

    def _is_there(self) -> bool:
        try:
            found = self._path.lstat()
        except OSError:
            return False
        is_own = self._handle is None or os.path.samestat(found, os.fstat(self._handle))
        return stat.S_ISDIR(found.st_mode) and is_own

    def _let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def remove_abandoned(parent: Path, young_s: float = _YOUNG_S) -> None:
    """Removes folders of this user's servers that run no more."""
    if sys.platform == "win32":
        return
    for path in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = path.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < young_s:
                continue
            handle = _locked(path)
            if handle is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(handle)


def _locked(path: Path) -> int | None:
    """The folder, open and locked; None where another process has the lock, or it is no folder."""
    if sys.platform == "win32":
        return None
    handle = -1
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if handle >= 0:
            os.close(handle)
        return None
    return handle
