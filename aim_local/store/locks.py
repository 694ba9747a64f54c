"""Locks of files between processes: what one holds no other gets, until it lets go or ends, however it ends.

Knows the kernel's locks (flock) and who holds one. Where the file system or the system has no such locks, nothing is
held and nobody is refused.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import AimError

try:
    import fcntl
except ImportError:  # Windows: who writes one place from two programs has to take care there
    fcntl = None  # type: ignore[assignment]

LOCK = ".aim-lock"  # the end of the names of files that are there to be locked
_ORPHAN_SECONDS = 10.0  # children of a killed process, which may hold its locks, end by themselves within this time
_LONGEST = 50  # characters of a name that are in its lock's name
_TICK = 0.05  # seconds between two tries


@dataclass
class Taken:
    """An open file and perhaps a lock on it: `locked` is False where there are no locks."""

    handle: int
    locked: bool

    @property
    def is_held(self) -> bool:
        return self.handle >= 0

    def is_at(self, path: Path) -> bool:
        """Whether the open file is the one that `path` names."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.handle), path.lstat())
        return False

    def release(self) -> None:
        """Idempotent."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


def take(handle: int) -> Taken:
    """Locks an open file, and waits where another process has it."""
    return Taken(handle, _flock(handle, wait=True) is True)


def take_if_free(path: Path) -> Taken | None:
    """The lock on a file or folder that is there; None where another process has it, or there are no locks.

    Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if _flock(handle, wait=False) is True:
        return Taken(handle, True)
    os.close(handle)
    return None


def try_lock(handle: int) -> bool:
    """Takes an open file for this process until it is closed; False where another has it."""
    return _flock(handle, wait=False) is not False


def _flock(handle: int, *, wait: bool) -> bool | None:
    """Whether this process has the lock now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without them
        return None
    return True


# --- a place that one process at a time may write --------------------------------------------------------------------


def lock_beside(path: Path) -> Path:
    """The lock of a file or folder that may not be there yet."""
    name = path.name
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return path.with_name(f".{name}{LOCK}")


@contextmanager
def held(
    path: Path, busy: Callable[[str], AimError], *, wait: bool = False, stays: bool = True
) -> Iterator[tuple[int, ...]]:
    """Holds the file `path`, made where it is missing; yields file descriptors that a child inherits to hold it too.

    busy: the error where another process has it, which is given as "process (123, since TIME)".
    wait: until it is free, instead. stays: whether the file is left there at the end. Raises that error, OSError.
    """
    lock = _taken(path, None if wait else busy)
    try:
        if lock.locked:
            os.ftruncate(lock.handle, 0)
            os.pwrite(lock.handle, _signature().encode(), 0)
        yield (lock.handle,) if lock.locked else ()
    finally:
        if not stays:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # before it is free: who waits for it sees that it is gone
        lock.release()


def _taken(path: Path, busy: Callable[[str], AimError] | None) -> Taken:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        lock = Taken(handle, False)
        try:
            if busy is None:
                lock.locked = _flock(handle, wait=True) is True
            else:
                lock.locked = _wait(handle, busy)
            if not lock.locked or lock.is_at(path):
                return lock
        except BaseException:
            lock.release()
            raise
        lock.release()  # its last owner removed it meanwhile


def _wait(handle: int, busy: Callable[[str], AimError]) -> bool:
    """Takes the lock; where the process that took it is gone, waits for the last of its children to end.

    False where there are no locks.
    """
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while (found := _flock(handle, wait=False)) is False:
        owner = os.pread(handle, 200, 0).decode(errors="replace").strip()
        if _is_alive(owner) or time.monotonic() > deadline:
            raise busy(_shown(owner))
        time.sleep(_TICK)
    return found is True


def _signature() -> str:
    return f"{os.getpid()} {time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()}"


def _shown(owner: str) -> str:
    pid, date, hour, host = [*owner.split(maxsplit=3), "", "", "", ""][:4]
    if not (pid.isdigit() and host):
        return "process"
    return f"process ({pid}{'' if host == socket.gethostname() else f' on {host}'}, since {date} {hour})"


def _is_alive(owner: str) -> bool:
    pid, _, _, host = [*owner.split(maxsplit=3), "", "", "", ""][:4]
    if host and host != socket.gethostname():
        return True  # nothing is known of it
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True
