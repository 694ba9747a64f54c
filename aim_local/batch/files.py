"""Files that outlive a kill: written whole, or line by line with what was cut dropped.

Knows files. What a line means is its owner's business.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..store.files import named, replaced
from ..store.plain_json import parsed_object
from ..visible import json_text

T = TypeVar("T")


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty where there is none that can be read."""
    try:
        return parsed_object(path.read_bytes())
    except (OSError, ValueError):
        return {}


def append_line(path: Path, fd: int, value: dict[str, Any], *, sync: bool = True) -> None:
    """One JSON object as a line of an open file, whole or not at all. sync: it is on the disk when this returns.

    path: of the file, for an OSError.
    """
    append_all(path, fd, json_text(value).encode() + b"\n")
    if sync:
        with named(path):
            os.fsync(fd)


def append_all(path: Path, fd: int, data: bytes) -> None:
    """All of it at the file's end, or nothing: a disk that fills up takes a part, which is taken back."""
    size = os.fstat(fd).st_size
    try:
        with named(path):
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
