"""The output, a folder or one file, appears whole or not at all.

Everything is written into a hidden folder or file beside the target, which takes the target's place at the end.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aim_local.store import MANIFEST, MMPROJ, MODEL

from .errors import ConvertError, some

try:
    import fcntl
except ImportError:  # Windows: leftovers stay
    fcntl = None  # type: ignore[assignment]

OURS = {MODEL, MMPROJ, MANIFEST}


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well, and is removed when it does not (Ctrl-C too).

    `out` may be new, empty, or an earlier conversion, which is replaced. Faults of the file system become ConvertError.
    """
    check_target(out)
    made: list[Path] = []
    stage: Path | None = None
    lock = -1
    try:
        made = make_parents(out.parent)
        remove_stale(out)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        os.chmod(stage, 0o777 & ~umask())  # mkdtemp makes it private, a model folder need not be
        lock = lock_folder(stage)
        yield stage
        replace(stage, out)
    except BaseException as e:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for folder in reversed(made):
            if not out.exists():
                remove_empty(folder)
        if isinstance(e, OSError):
            raise os_error(e, out) from e
        raise
    finally:
        if lock >= 0:
            os.close(lock)


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """A temporary file that becomes `out` when the block ends well and is removed when it does not."""
    if out.is_dir():
        raise ConvertError(f"{out} is a folder; name the file to write, or pass a model folder as the source")
    partial: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.partial-", dir=out.parent)
        os.close(handle)
        partial = Path(name)
        yield partial
        sync(partial)
        os.chmod(partial, 0o644)
        os.replace(partial, out)
    except BaseException as e:
        if partial is not None:
            partial.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise os_error(e, out) from e
        raise


def sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def remove_stale(out: Path) -> None:
    """Removes what killed conversions to `out` left behind: folders whose lock no living process holds."""
    prefix = f".{out.name}.partial-"
    for folder in [p for p in out.parent.iterdir() if p.name.startswith(prefix) and p.is_dir() and not p.is_symlink()]:
        lock = lock_folder(folder)
        if lock >= 0:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def lock_folder(folder: Path) -> int:
    """A file descriptor that holds the lock, freed by the kernel with the process; -1: held, or no locks here."""
    if fcntl is None:
        return -1
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return -1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return -1
    return lock


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


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def replace(stage: Path, out: Path) -> None:
    """Put `stage` in the place of `out`; an earlier conversion goes only when the new one is there."""
    if not out.exists():
        stage.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.rename(old / out.name)
    try:
        stage.rename(out)
    except BaseException:
        (old / out.name).rename(out)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_space(folder: Path, needed: int, out: Path) -> None:
    """Fail before the first byte where the disk cannot hold `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConvertError(
            f"{out} needs {size_text(needed)} and the disk has {size_text(free)} free; "
            "free some space or name another --out"
        )


def size_text(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 else f"{n / 2**20:.1f} MiB"


def os_error(e: OSError, out: Path) -> ConvertError:
    """One clear line for a fault of the file system."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConvertError(
            f"the disk filled up while writing {out}; nothing was left behind: free some space or name another --out"
        )
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ConvertError(f"{out} cannot be written ({e.strerror}); name a folder you may write to")
    return ConvertError(f"{out} cannot be written ({e.strerror or e}); name another folder")
