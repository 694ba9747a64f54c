"""Variables of OpenMP, looked at before its library is loaded, which complains in words of its own and goes on.

Whatever loads it reads them again: this process, its children. Left to it is which CPUs and allocators there are.
ref: the OpenMP specification, "Environment Variables"; libgomp's manual and env.c
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Callable

from ..errors import UsageError

_COUNT = r"\s*\+?0*[1-9]\d{0,8}\s*"
_BIND = r"\s*(?:master|primary|close|spread)\s*"
_CPUS = r"\d{1,9}(?:-\d{1,9}(?::0*[1-9]\d*)?)?"
_PLACES = r"(?:threads|cores|sockets|ll_caches|numa_domains)\s*(?:\(\s*0*[1-9]\d*\s*\)\s*)?"
_FROM_ONE = (r"\s*\+?0*[1-9]\d{0,17}\s*", "give a whole number, 1 or more")
_FROM_ZERO = (r"\s*\+?(?:\d{1,9}|2147483647)\s*", "give a whole number, 0 or more")
_FLAG = (r"\s*(?:true|false)\s*", "give true or false")
_SIZE = (r"\s*(\d+)\s*([bkmg]?)\s*", "give a size such as 4M")
# variable -> what it may be, and in words
_RULES = {
    "OMP_NUM_THREADS": (rf"{_COUNT}(?:,{_COUNT})*", "give a whole number, 1 or more"),
    "OMP_THREAD_LIMIT": _FROM_ONE,
    "OMP_NUM_TEAMS": _FROM_ONE,
    "OMP_TEAMS_THREAD_LIMIT": _FROM_ONE,
    "OMP_MAX_ACTIVE_LEVELS": _FROM_ZERO,
    "OMP_MAX_TASK_PRIORITY": _FROM_ZERO,
    "OMP_DEFAULT_DEVICE": _FROM_ZERO,
    "OMP_WAIT_POLICY": (r"\s*(?:active|passive)\s*", "give active or passive"),
    "OMP_PROC_BIND": (rf"{_FLAG[0]}|{_BIND}(?:,{_BIND})*", "give true, false, close, spread or primary"),
    "OMP_PLACES": (rf"\s*(?:[{{!\d].*|{_PLACES})", "give threads, cores, sockets or sets of CPUs such as {0:4}"),
    "OMP_SCHEDULE": (
        r"\s*(?:(?:non)?monotonic\s*:\s*)?(?:static|dynamic|guided|auto)\s*(?:,\s*[+-]?\d{1,9}\s*)?",
        "give static, dynamic, guided or auto, with a number behind a comma",
    ),
    "OMP_TARGET_OFFLOAD": (r"\s*(?:default|mandatory|disabled)\s*", "give default, mandatory or disabled"),
    "OMP_ALLOCATOR": (r"\s*omp_\w.*", "give one such as omp_default_mem_alloc"),
    "OMP_DYNAMIC": _FLAG,
    "OMP_NESTED": _FLAG,
    "OMP_CANCELLATION": _FLAG,
    "OMP_DISPLAY_AFFINITY": _FLAG,
    "OMP_DISPLAY_ENV": (rf"{_FLAG[0]}|\s*verbose\s*", "give true, false or verbose"),
    "OMP_STACKSIZE": _SIZE,
    "GOMP_STACKSIZE": _SIZE,
    "GOMP_CPU_AFFINITY": (rf"\s*{_CPUS}(?:[\s,]+{_CPUS})*\s*", "give numbers of CPUs such as 0-3"),
    "GOMP_SPINCOUNT": (r"\s*(?:infinit[ey]|\d{1,15}\s*[kmgt]?)\s*", "give a whole number or infinite"),
    "GOMP_DEBUG": _FROM_ZERO,
}


def check_environment() -> None:
    """Raises UsageError for the first variable that OpenMP could not make anything of.

    One without a value asks for nothing, and is unset: libgomp complains of it, and does without.
    """
    for name, (allowed, words) in _RULES.items():
        value = os.environ.get(name)
        if value is None:
            continue
        if not value.strip():
            del os.environ[name]
            continue
        is_one = re.fullmatch(allowed, value, re.IGNORECASE | re.ASCII) is not None
        advice = _CLOSER.get(name, _no_advice)(value) if is_one else words
        if advice:
            raise UsageError(f"{name} is {value!a:.80}; {advice}, or unset it")


def _no_advice(_: str) -> str:
    return ""


def _wrong_stack(value: str) -> str:
    """What to do about a size of each thread's stack: threads are made with it, in the middle of the work."""
    found = re.fullmatch(_SIZE[0], value, re.IGNORECASE | re.ASCII)
    assert found
    n_bytes = int(found[1].lstrip("0")[:20] or 0) << {"b": 0, "": 10, "k": 10, "m": 20, "g": 30}[found[2].lower()]
    least = os.sysconf("SC_THREAD_STACK_MIN") if sys.platform == "linux" else 1 << 14
    if n_bytes < least:
        return f"give {-(-least // 1024)}k or more"
    try:
        mmap.mmap(-1, n_bytes).close()
    except (OSError, OverflowError, ValueError):
        return "give a size that fits in memory, such as 4M"
    return ""


def _wrong_cpus(value: str) -> str:
    falls = any(int(low) > int(high) for low, high in re.findall(r"(\d+)-(\d+)", value))
    return "give ranges of CPUs that rise, such as 0-3" if falls else ""


# variable -> looks at what the rule let through, and says what to do
_CLOSER: dict[str, Callable[[str], str]] = {
    "OMP_STACKSIZE": _wrong_stack,
    "GOMP_STACKSIZE": _wrong_stack,
    "GOMP_CPU_AFFINITY": _wrong_cpus,
}
