"""A file that comes in piece by piece: never larger than allowed, known by its digest at the end.

Knows sizes, room and the disk. Where the bytes come from, and what they hold, is for others.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..failures import RequestError
from ..limits import Limits
from .room import Room
from .words import beyond, size

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Landed:
    """A whole file. digest: sha256 of its bytes, 64 hex digits. n_bytes: so much of the room is taken for it."""

    path: Path
    digest: str
    n_bytes: int


def too_large(n_bytes: int, limits: Limits) -> RequestError:
    """For a file of (at least) so many bytes."""
    return beyond("file_bytes", f"the file has {size(n_bytes)}", f"{size(limits.file_bytes)} are")


class Landing:
    """Writes a file; `with` removes it unless it was finished. Of one thread at a time.

    no_room: makes the refusal for so many bytes that the room has no place for. expected: bytes that will come, as far
    as is known: room is taken for them at once, so that what cannot fit is refused before it is written.
    """

    def __init__(
        self, path: Path, limits: Limits, room: Room, no_room: Callable[[int], RequestError], expected: int = 0
    ) -> None:
        self._path, self._limits, self._room, self._no_room = path, limits, room, no_room
        self._taken = self.n_bytes = 0
        self._digest = hashlib.sha256()
        self._reserve(expected)
        try:
            self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        except OSError as e:
            self._room.give(self._taken)
            raise disk_failure(e) from e
        self._open = True

    def expect(self, n_bytes: int) -> None:
        """So many bytes will come in all. Raises RequestError where that is too much."""
        self._reserve(n_bytes)

    def write(self, data: bytes) -> None:
        """Raises RequestError, and nothing is written, where the file becomes too large or there is no room."""
        self._reserve(self.n_bytes + len(data))
        try:
            self._file.write(data)
        except OSError as e:
            raise disk_failure(e) from e
        self.n_bytes += len(data)
        self._digest.update(data)

    def finish(self) -> Landed:
        """The file is whole; its room is the caller's from now on. Raises RequestError for an empty one."""
        if not self.n_bytes:
            raise RequestError(400, "the file is empty (0 bytes); send the video or picture itself", code="empty_file")
        try:
            self._file.close()
        except OSError as e:
            raise disk_failure(e) from e
        self._open = False
        self._room.give(self._taken - self.n_bytes)
        return Landed(self._path, self._digest.hexdigest(), self.n_bytes)

    def abort(self) -> None:
        """Nothing is left of it. Idempotent, and without effect on a finished file."""
        if not self._open:
            return
        self._open = False
        try:
            self._file.close()
        except OSError:
            pass  # what could not be written is not wanted
        finally:
            self._path.unlink(missing_ok=True)
            self._room.give(self._taken)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()

    def _reserve(self, n_bytes: int) -> None:
        if n_bytes > self._limits.file_bytes:
            raise too_large(n_bytes, self._limits)
        more = n_bytes - self._taken
        if more > 0 and not self._room.take(more):
            raise self._no_room(n_bytes)
        self._taken = max(self._taken, n_bytes)


def disk_failure(e: OSError) -> RequestError:
    """For a file of the server's own that could not be written or read."""
    if e.errno in _FULL:
        return RequestError(507, "the server's disk is full; free some of it, then ask again", code="disk_full")
    if e.errno == errno.ENOENT:
        return RequestError(503, "somebody removed the server's own files; send what you sent again", code="files_gone")
    return RequestError(500, f"a file on the server cannot be read or written ({e.strerror or type(e).__name__})")
