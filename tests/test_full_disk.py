"""A disk that is full is told with the name of the file that was written, however it was open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aim_local.batch.files import append_all, append_line, write_text
from aim_local.store.files import replaced

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


def through_a_handle(path: Path) -> None:
    with replaced(path), FULL.open("w") as out:
        out.write("x")


def appended(write: Callable[[Path, int], None]) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        fd = os.open(FULL, os.O_WRONLY)
        try:
            write(path, fd)
        finally:
            os.close(fd)

    return run


WRITES: dict[str, Callable[[Path], None]] = {
    "replaced": through_a_handle,
    "append_all": appended(lambda path, fd: append_all(path, fd, b"x")),
    "append_line": appended(lambda path, fd: append_line(path, fd, {"a": 1})),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_names_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with pytest.raises(OSError, match="No space left on device") as caught:
        WRITES[name](path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_named_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replaced(tmp_path / "a"):
        (tmp_path / "none").read_text()
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "none" / "a", "x")
