"""A file's name as a program gives it: str, bytes or os.PathLike of either, with ~ or without. Knows names; whether
there is such a file is the caller's business.

Python keeps a name's bytes that are no text as halves of surrogate pairs (PEP 383), so that every name that a file can
have is a str and opens; what no file can be called is told here, in one line.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .errors import UsageError

Name = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def path_of(name: object, what: str) -> Path:
    """The path; ~ stands as it is. what: what it is for, in an error's words. Raises UsageError."""
    if not isinstance(name, str | bytes | os.PathLike):
        raise UsageError(f"{what} is {name!r:.80}, {type(name).__name__}; give the path of a file")
    text = os.fsdecode(name)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as e:
        raise UsageError(f"{what} is {text!r:.80}, which no file can be called here ({e.encoding}); rename it") from e
    if b"\0" in encoded:
        raise UsageError(f"{what} is {text!r:.80}, which no file can be called; give a path, not what is in the file")
    if _is_too_long(encoded):
        said = f"{what} is {text!r:.80}..., of {len(encoded):,} bytes, longer than a file's name can be"
        raise UsageError(f"{said}; give a path, not what is in the file")
    return Path(text)


def _is_too_long(name: bytes) -> bool:
    """As the file system says: each has a greatest length of its own."""
    try:
        os.lstat(name)
    except OSError as e:
        return e.errno == errno.ENAMETOOLONG
    return False


def home_path_of(name: object, what: str) -> Path:
    """As `path_of`, with ~ as the user's home."""
    return Path(os.path.expanduser(path_of(name, what)))
