"""Files that were uploaded once and are named by their id from then on, in a folder of the server's own.

Knows OpenAI's file object, and the room that all files share. What HTTP makes of it is app.py's. A file's id is the
only part of its path; the name it came with is for people. The folder can be read by its owner alone, and goes with
`close()`.
"""

from __future__ import annotations

import errno
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..failures import RequestError
from ..limits import Limits
from .heads import check_head
from .landing import Landed, Landing, disk_failure
from .private_folder import PrivateFolder
from .room import Room
from .words import OPTIONS, display_name, shown, size

PURPOSES = ("vision", "user_data", "assistants")
MOST_FILES = 10_000  # that are kept, however small they are


@dataclass(frozen=True)
class Upload:
    """A file that is kept. name: for people. n_bytes: of the file. created: seconds since 1970. digest: sha256, hex.

    owner: the API key it came with, as a name; "" without keys: then it is everybody's.
    """

    id: str
    name: str
    purpose: str
    n_bytes: int
    created: int
    digest: str
    path: Path
    owner: str = ""

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.n_bytes,
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Writer:
    """An upload on its way. `with` leaves nothing of it unless it was finished. Its calls block for the disk only."""

    def __init__(self, landing: Landing, keep: Callable[[Landed, str], Upload]) -> None:
        self._landing, self._keep = landing, keep

    def write(self, data: bytes) -> None:
        """The next bytes. Raises RequestError where there are too many, and then nothing more is taken."""
        self._landing.write(data)

    def finish(self, purpose: str = "") -> Upload:
        """All bytes came. Raises RequestError, and nothing is kept, for what is no video or picture.

        purpose: where it came behind the file; "" for that of the beginning.
        """
        with self._landing:
            if purpose:
                check_purpose(purpose)
            landed = self._landing.finish()
        return self._keep(landed, purpose)

    def abort(self) -> None:
        """The client is gone: nothing is left. Idempotent."""
        self._landing.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()


class Uploads:
    """Many threads may call. Own it: `close()` or `with`.

    parent: where the private folder is made; None: with the system's temporary files.
    room: shared with the files that running requests bring along. scratch: a folder for those.
    """

    def __init__(self, limits: Limits, parent: Path | None = None) -> None:
        self.limits, self.room = limits, Room(limits.files_bytes)
        self._private = PrivateFolder(parent)
        self._kept: dict[str, Upload] = {}
        self._users: dict[str, int] = {}  # of files that running requests read
        self._gone: dict[str, Upload] = {}  # deleted while somebody read them
        self._lock = threading.Lock()

    @property
    def scratch(self) -> Path:
        """For files that go with their request. Raises RequestError where it was removed and no other can be made."""
        try:
            return self._private.path
        except OSError as e:
            raise disk_failure(e) from e

    def begin(self, name: str, purpose: str, n_bytes: int = 0, owner: str = "") -> Writer:
        """n_bytes: how many will come, as far as is known; what cannot fit is refused here. Raises RequestError."""
        check_purpose(purpose)
        with self._lock:
            self._drop_lost()
            self._check_count()
        folder = self.scratch
        id, created = f"file-{secrets.token_hex(16)}", int(time.time())
        no_room, path = partial(self._no_room, owner=owner), folder / id
        landing = Landing(folder / f"{id}.part", self.limits, self.room, no_room, n_bytes)

        def keep(whole: Landed, late: str) -> Upload:
            facts = (late or purpose, whole.n_bytes, created, whole.digest)
            return self._keep(whole, Upload(id, display_name(name), *facts, path, owner))

        return Writer(landing, keep)

    def files(self, owner: str = "") -> list[Upload]:
        """All that are kept for an owner, the newest first."""
        with self._lock:
            self._drop_lost()
            return [upload for upload in reversed(self._kept.values()) if upload.owner == owner]

    def get(self, id: str, owner: str = "") -> Upload:
        """Raises RequestError (404), also for the file of another owner."""
        with self._lock:
            return self._own(id, owner)

    def delete(self, id: str, owner: str = "") -> None:
        """A request that reads the file reads on. Raises RequestError (404)."""
        with self._lock:
            upload = self._own(id, owner)
            del self._kept[id]
            if self._users.get(id):
                self._gone[id] = upload
                return
        self._remove(upload)

    @contextmanager
    def held(self, id: str, owner: str = "") -> Iterator[Upload]:
        """A file that stays in place until the block ends, deleted or not. Raises RequestError (404)."""
        with self._lock:
            upload = self._own(id, owner)
            self._users[id] = self._users.get(id, 0) + 1
        try:
            yield upload
        finally:
            with self._lock:
                self._users[id] -= 1
                free = not self._users[id]
                if free:
                    del self._users[id]
                unwanted = self._gone.pop(id, None) if free else None
            if unwanted:
                self._remove(unwanted)

    def close(self) -> None:
        """The folder goes, with all that is in it. Idempotent."""
        self._private.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _own(self, id: str, owner: str) -> Upload:
        self._drop_lost(id)
        found = self._kept.get(id)
        if found is None or found.owner != owner:
            raise _missing(id)
        return found

    def _drop_lost(self, *ids: str) -> None:
        """Forgets what somebody removed from the folder: these, or any. Under the lock."""
        for upload in [self._kept[id] for id in ids or tuple(self._kept) if id in self._kept]:
            if not upload.path.exists():
                del self._kept[upload.id]
                self.room.give(upload.n_bytes)

    def _keep(self, landed: Landed, upload: Upload) -> Upload:
        try:
            check_head(landed.path, upload.name, self.limits)
            with self._lock:
                self._check_count()
                landed.path.rename(upload.path)
                self._kept[upload.id] = upload
        except BaseException as e:
            is_lost = not landed.path.exists()
            landed.path.unlink(missing_ok=True)
            self.room.give(landed.n_bytes)
            if is_lost:
                raise disk_failure(FileNotFoundError(errno.ENOENT, "it is gone")) from e
            if isinstance(e, OSError):
                raise disk_failure(e) from e
            raise
        return upload

    def _remove(self, upload: Upload) -> None:
        upload.path.unlink(missing_ok=True)
        self.room.give(upload.n_bytes)

    def _check_count(self) -> None:
        if len(self._kept) >= MOST_FILES:
            raise RequestError(413, f"{MOST_FILES:,} files are kept already; delete some first", code="too_many_files")

    def _no_room(self, n_bytes: int, owner: str) -> RequestError:
        with self._lock:
            own = [upload for upload in self._kept.values() if upload.owner == owner]
            largest = max(own, key=lambda upload: upload.n_bytes, default=None)
        such = f", such as {largest.id} ({shown(largest.name)}, {size(largest.n_bytes)})," if largest else ""
        free, total = size(self.room.free), size(self.limits.files_bytes)
        return RequestError(
            413,
            f"the file has {size(n_bytes)}, and {free} of {total} are free; delete"
            f" files{such} with DELETE /v1/files/ID, or start the server with a larger {OPTIONS['files_bytes']}",
            code="no_room",
        )


def check_purpose(purpose: str) -> None:
    """Raises RequestError."""
    if purpose not in PURPOSES:
        allowed = " or ".join(PURPOSES)
        raise RequestError(
            400, f"purpose is {shown(purpose)}; files here are videos and pictures: {allowed}", param="purpose"
        )


def _missing(id: str) -> RequestError:
    message = f"no file {shown(id)} is kept here; upload it (POST /v1/files), ids end with the server"
    return RequestError(404, message, code="file_not_found")
