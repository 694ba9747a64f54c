"""How many threads a tower computes with."""

from __future__ import annotations

import os
from pathlib import Path

_TINY = 512


def physical_cores() -> int:
    """Cores this process may run on, hyper-threads counted once: more threads only wait for each other."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return max(1, os.cpu_count() or 1)
    siblings = set()
    for cpu in allowed:
        listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(listed.read_text() if listed.is_file() else str(cpu))
    return max(1, len(siblings))


def thread_count(asked: int | None, n_embd: int) -> int:
    """Threads for a tower of width n_embd: what was asked, else the physical cores, else one for a tiny tower.

    A tiny tower's graph is all barriers: a second thread gains nothing, and on a busy machine waits at each of them.
    """
    return asked or (physical_cores() if n_embd >= _TINY else 1)
