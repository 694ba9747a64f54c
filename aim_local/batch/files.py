"""Files that outlive a kill: written whole, or line by line with what was cut dropped; held by one process at a time.

Knows files and locks. What a line means is its owner's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import AimError
from ..visible import json_text

try:
    import fcntl
except ImportError:  # Windows: the lock is the user's care there
    fcntl = None  # type: ignore[assignment]

_ORPHAN_SECONDS = 10.0  # children of a killed process end by themselves within this time
T = TypeVar("T")


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def append_line(fd: int, value: dict[str, Any], *, sync: bool = True) -> None:
    """One JSON object as a line of an open file, whole or not at all. sync: it is on the disk when this returns."""
    append_all(fd, json_text(value).encode() + b"\n")
    if sync:
        os.fsync(fd)


def append_all(fd: int, data: bytes) -> None:
    """All of it at the file's end, or nothing: a disk that fills up takes a part, which is taken back."""
    size = os.fstat(fd).st_size
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


def good_lines(path: Path, parse: Callable[[bytes], T | None]) -> list[T]:
    """What `parse` makes of the file's lines, up to one that was cut or that it makes None of; that is cut off.

    No file: no lines.
    """
    found, rest = read_lines(path, parse)
    if rest:
        cut_off(path, rest)
    return found


def read_lines(path: Path, parse: Callable[[bytes], T | None]) -> tuple[list[T], bytes]:
    """As good_lines, and what it would cut off; changes nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], b""
    found, good = list[T](), 0
    for line in data.split(b"\n")[:-1]:  # what follows the last end of line was cut
        value = parse(line)
        if value is None:
            break
        found.append(value)
        good += len(line) + 1
    return found, data[good:]


def cut_off(path: Path, rest: bytes) -> None:
    """Removes what read_lines found behind the good lines."""
    os.truncate(path, path.stat().st_size - len(rest))


@contextmanager
def held(path: Path, busy: Callable[[str], str]) -> Iterator[tuple[int, ...]]:
    """Holds the file `path`, made where it is missing; yields file descriptors that a child inherits to hold it too.

    busy: what to say where another process has it, whose number is given. Raises AimError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is None:
            yield ()
            return
        _wait(fd, busy)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield (fd,)
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Takes an open file for this process until it is closed; False where another has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _wait(fd: int, busy: Callable[[str], str]) -> None:
    """Takes the lock; where the process that took it is gone, waits for the last of its children to end."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while not try_lock(fd):
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        if _alive(owner) or time.monotonic() > deadline:
            raise AimError(busy(owner or "unknown"))
        time.sleep(0.05)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:  # somebody else's
        return True
    return True
