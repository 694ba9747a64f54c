"""The output, a folder or one file, appears whole or not at all.

Everything is written into a hidden folder or file beside the target, which takes the target's place at the end
(aim_local/store/files.py). Two processes do not write one output at a time: the second is refused.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aim_local.store import MANIFEST, MMPROJ, MODEL
from aim_local.store.files import Part, replaced
from aim_local.store.locks import held, lock_beside
from aim_local.store.names import check_home

from .errors import ConvertError, some

OURS = {MODEL, MMPROJ, MANIFEST}


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and is removed when it does not (Ctrl-C too).

    `out` may be new, empty, or an earlier conversion, which is replaced. Faults of the file system become ConvertError.
    """
    check_target(out)
    made: list[Path] = []
    try:
        made = make_parents(out.parent)
        with alone(out), Part(out, is_folder=True) as part:
            yield part.at
            check_target(out)  # others may have put something there meanwhile
            part.keep()
    except BaseException as e:
        for folder in reversed(made):
            if not out.exists():
                remove_empty(folder)
        if isinstance(e, OSError):
            raise os_error(e, out) from e
        raise


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """A temporary file that becomes `out` when the block ends well and is removed when it does not."""
    if out.is_dir():
        raise ConvertError(f"{out} is a folder; name the file to write, or pass a model folder as the source")
    try:
        with alone(out), replaced(out) as partial:
            yield partial
    except OSError as e:
        raise os_error(e, out) from e


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Holds `out`, whose folder is there. Raises ConvertError where another process writes it."""

    def busy(owner: str) -> ConvertError:
        return ConvertError(f"{out} is being written by another {owner}; wait for it, or name another output")

    with held(lock_beside(out), busy, stays=False):
        yield


def check_target(out: Path) -> None:
    if out.is_dir():
        foreign = sorted(p.name for p in out.iterdir() if p.name not in OURS)
        if foreign:
            raise ConvertError(
                f"{out} holds other files ({some(foreign)}); name a new or empty folder, or an earlier conversion"
            )
    elif out.exists() or out.is_symlink():
        raise ConvertError(f"{out} exists and is not a folder; name a new or empty folder")


def check_apart(out: Path, src: Path) -> None:
    """Raises ConvertError for an output inside the folder it is made of."""
    if out.resolve().is_relative_to(src.resolve()) and out.resolve() != src.resolve():
        raise ConvertError(
            f"{out} is inside the checkpoint folder {src}, which stays as it is; name a folder elsewhere"
        )


def make_parents(folder: Path) -> list[Path]:
    """Create `folder`; returns what was created, outermost first."""
    check_home(folder)
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
    return missing[::-1]


def remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # somebody else put something there meanwhile: theirs stays
        folder.rmdir()


def check_space(folder: Path, needed: int, out: Path) -> None:
    """Fail before the first byte where the disk cannot hold `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConvertError(
            f"{out} needs {size_text(needed)} and the disk has {size_text(free)} free; "
            "free some space or write to another disk"
        )


def size_text(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"


def os_error(e: OSError, out: Path) -> ConvertError:
    """One clear line for a fault of the file system."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConvertError(
            f"the disk filled up while writing {out}; nothing was left behind: free some space or write to another disk"
        )
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConvertError(f"{out} cannot be written ({e.strerror}); name a folder you may write to")
    return ConvertError(f"{out} cannot be written ({e.strerror or e}); name another folder")
