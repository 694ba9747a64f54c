"""Room in this process's address space, where it is limited (`ulimit -v`, `ulimit -d`): looked at before native work.

Where the libraries cannot have a large buffer, they say so; where they cannot have a small one, they end the process.
So there has to be room for small ones before a call. Without a limit nothing is asked. Linux; elsewhere nothing is
known. And how many files may be open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..errors import NativeError
from .heap import take_one_arena

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MARGIN = 32 << 20  # bytes: graphs, the stacks of threads, what numpy and Python take meanwhile
VISION_GRAPH = 160 << 20  # bytes that ggml's scheduler takes for the 8192 nodes that clip.cpp asks for
_NODE_BYTES = 2 * 30 * 336  # of the scheduler for each node: GGML_SCHED_MAX_SPLIT_INPUTS copies in and out
_START = {
    "-v": 288 << 20,
    "-d": 104 << 20,
}  # bytes: Python's and our libraries, and what they take when they are loaded
_LEAST_FILES = 64  # open at once: the libraries, other processes' pipes, a service's sockets; no system allows fewer
_STATM = Path("/proc/self/statm")  # in pages: all that is mapped, ..., data and stack
_MAPPED, _DATA = 0, 5


def address_room() -> int | None:
    """Bytes that this process may still map; None where there is no limit, or nothing is known of it."""
    rooms = [limit - used for limit, used, _ in _limits()]
    return min(rooms, default=None)


def open_files() -> int | None:
    """Files that this process may have open at once; None where nothing is known of a limit."""
    if resource is None:
        return None
    n, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if n == resource.RLIM_INFINITY else int(n)


def check_room(n_bytes: int = 0, data_bytes: int | None = None) -> None:
    """Raises NativeError where less than MARGIN would be left beside n_bytes.

    data_bytes: how much of that is memory of the process's own, no mapped file; None for all of it.
    """
    for limit, used, option in _limits():
        needed = MARGIN + (n_bytes if option == "-v" or data_bytes is None else data_bytes)
        if limit - used < needed:
            raise NativeError(
                f"not enough memory: this process may have {limit >> 20} MiB (ulimit {option}), has {used >> 20}, and "
                f"needs {needed >> 20} MiB more; raise the limit, or use a smaller context, fewer frames or a more "
                "strongly quantised model"
            )


def check_start() -> None:
    """For a program, before anything large is imported: libraries that find no room end in ways of their own.

    Raises NativeError where a limit is too low for any work.
    """
    n_files = open_files()
    if n_files is not None and n_files < _LEAST_FILES:
        raise NativeError(
            f"this process may have {n_files} files open (ulimit -n), and needs {_LEAST_FILES} at least; raise the "
            "limit, as with `ulimit -n 256`"
        )
    for limit, used, option in _limits():
        if limit - used < _START[option]:
            raise NativeError(
                f"not enough memory: this process may have {limit >> 20} MiB (ulimit {option}), and needs "
                f"{(used + _START[option]) >> 20} MiB for its libraries alone; raise the limit"
            )


@cache
def _save_room() -> None:
    """Where there is a limit, nothing is mapped that may never be used."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # 40 MiB for each; read when numpy is imported
    take_one_arena()


def graph_bytes(n_layer: int) -> int:
    """What the scheduler takes for a language model's graphs: llama.cpp counts 8 nodes a tensor, 1024 at least."""
    return max(1024, 8 * 16 * n_layer) * _NODE_BYTES


def file_bytes(paths: Iterable[Path]) -> int:
    """Of files that will be mapped; one that is not there is told where it is opened."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def _limits() -> list[tuple[int, int, str]]:
    """(bytes allowed, bytes in use, ulimit's option) for each limit that is set."""
    if resource is None:
        return []
    kinds = ((resource.RLIMIT_AS, _MAPPED, "-v"), (resource.RLIMIT_DATA, _DATA, "-d"))
    set_ = [(soft, at, option) for kind, at, option in kinds if (soft := resource.getrlimit(kind)[0]) >= 0]
    if not set_:
        return []
    _save_room()
    try:
        pages = _STATM.read_text(encoding="ascii").split()
    except OSError:  # no Linux
        return []
    return [(soft, int(pages[at]) * os.sysconf("SC_PAGE_SIZE"), option) for soft, at, option in set_]
