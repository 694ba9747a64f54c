"""Files of the server's own that a request may name: those under the folder of --media-path, and no way out of it.

Knows paths and the file system. A file is opened first and looked at then, so that nothing can change in between.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from ..failures import RequestError
from .words import display_name, shown

_CHUNK = 2**20
_DRIVE = re.compile(r"/?[A-Za-z][:|]")
_BY_FOLDER = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)

OFF = (
    "names a file on the server, which reads none of its own: start it with --media-path FOLDER, or send the file"
    " itself (base64, a data: URL)"
)


@dataclass(frozen=True)
class Opened:
    """path: by which this very file can be read while it is held. digest: sha256 of its bytes, 64 hex digits."""

    path: Path
    name: str
    digest: str


class MediaFolder:
    """The folder whose files requests may name. Raises UsageError where it is none."""

    def __init__(self, folder: Path) -> None:
        self._given, self._root = os.path.abspath(folder), os.path.realpath(folder)
        if not os.path.isdir(self._root):
            raise UsageError(f"--media-path {folder}: no such folder; name a folder with videos or pictures")

    @contextmanager
    def opened(self, path: str, check: Callable[[], None]) -> Iterator[Opened]:
        """A file by its path, absolute or from the folder on. check: raises to stop. Raises RequestError."""
        real = self._real(path)
        try:
            handle = self._open(real)
        except OSError as e:
            raise _unreadable(path, e) from e
        try:
            _check_kind(path, os.fstat(handle))
            yield Opened(_held(handle, real), display_name(path), _digest(handle, check))
        finally:
            os.close(handle)

    def _real(self, path: str) -> str:
        """The path without links. What is not below the folder by name is not looked for."""
        if os.name != "nt" and (_DRIVE.match(path) or path.startswith("\\\\")):
            raise RequestError(
                400, f"{shown(path)} is a path of Windows, and this server runs elsewhere; give a path on the server",
                code="bad_path",
            )  # fmt: skip
        if "\0" in path or len(path) > 4096:
            raise RequestError(400, f"{shown(path)} is no path", code="bad_path")
        if ".." in re.split(r"[\\/]" if os.name == "nt" else "/", path):
            raise RequestError(403, f"{shown(path)} has '..' in it; write the path without", code="outside_media_path")
        try:
            candidate = os.path.normpath(os.path.join(self._given, path))
            if not (_is_below(candidate, self._given) or _is_below(candidate, self._root)):
                raise _outside(path)
            real = os.path.realpath(candidate)
        except (OSError, ValueError) as e:
            raise RequestError(400, f"{shown(path)} is no path", code="bad_path") from e
        if not _is_below(real, self._root):
            raise _outside(path)
        return real

    def _open(self, real: str) -> int:
        """Opened step by step from the folder on, no link followed: a link put there meanwhile leads nowhere."""
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if not _BY_FOLDER:
            return os.open(real, flags)
        handle = os.open(self._root, flags | os.O_DIRECTORY)
        steps = [step for step in os.path.relpath(real, self._root).split(os.sep) if step != os.curdir]
        for i, step in enumerate(steps):
            folder = os.O_DIRECTORY if i < len(steps) - 1 else 0
            try:
                inner = os.open(step, flags | os.O_NOFOLLOW | folder, dir_fd=handle)
            finally:
                os.close(handle)
            handle = inner
        return handle


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _check_kind(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise RequestError(400, f"{shown(path)} is a folder; name a video or picture in it", code="bad_path")
    if not stat.S_ISREG(found.st_mode):
        raise RequestError(403, f"{shown(path)} is no regular file, and only those are read", code="bad_path")
    if not found.st_size:
        raise RequestError(400, f"{shown(path)} is empty (0 bytes)", code="empty_file")


def _held(handle: int, real: str) -> Path:
    """The path of an open file. On Linux it leads to that very file, whatever is put in its place."""
    held = Path(f"/proc/self/fd/{handle}")
    try:
        return held if os.path.samestat(held.stat(), os.fstat(handle)) else Path(real)
    except OSError:
        return Path(real)


def _digest(handle: int, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    while data := os.read(handle, _CHUNK):
        check()
        digest.update(data)
    return digest.hexdigest()


def _outside(path: str) -> RequestError:
    return RequestError(403, f"{shown(path)} is not in the folder of --media-path", code="outside_media_path")


def _unreadable(path: str, e: OSError) -> RequestError:
    if e.errno in _GONE:
        message = f"{shown(path)}: no such file in the folder of --media-path; check its name"
        return RequestError(404, message, code="file_not_found")
    if e.errno == errno.ELOOP:
        return _outside(path)
    return RequestError(403, f"{shown(path)} cannot be read ({e.strerror or type(e).__name__})", code="unreadable_file")
