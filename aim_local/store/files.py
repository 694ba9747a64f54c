"""Files that appear whole or not at all. Knows nothing of what is in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOM = 200  # bytes of a name, which may have 255 with what is put around it


def begin_of(name: str) -> str:
    """The beginning of a name that is as long as a name can be, for there is no room for more."""
    return os.fsdecode(os.fsencode(name)[:_ROOM])


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write to; it becomes `path` when the block ends well, else it is removed.

    Raises OSError.
    """
    handle, name = tempfile.mkstemp(prefix=f".{begin_of(path.name)}.", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
