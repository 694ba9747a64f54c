"""Variables of OpenMP, looked at before its library is loaded, which complains in words of its own and goes on.

Whatever loads it reads them again: this process, its children. Only those that people set are known here.
ref: the OpenMP specification, "Environment Variables"; libgomp's manual (GOMP_CPU_AFFINITY)
"""

from __future__ import annotations

import os
import re

from ..errors import UsageError

_COUNT = r"\s*\+?0*[1-9]\d{0,8}\s*"
_BIND = r"\s*(?:master|primary|close|spread)\s*"
_CPUS = r"\d+(?:-\d+(?::\d+)?)?"
_FLAG = (r"\s*(?:true|false)\s*", "give true or false")
# variable -> what it may be, and in words
_RULES = {
    "OMP_NUM_THREADS": (rf"{_COUNT}(?:,{_COUNT})*", "give a whole number, 1 or more"),
    "OMP_THREAD_LIMIT": (_COUNT, "give a whole number, 1 or more"),
    "OMP_WAIT_POLICY": (r"\s*(?:active|passive)\s*", "give active or passive"),
    "OMP_PROC_BIND": (rf"{_FLAG[0]}|{_BIND}(?:,{_BIND})*", "give true, false, close, spread or primary"),
    "OMP_DYNAMIC": _FLAG,
    "OMP_STACKSIZE": (r"\s*\d+\s*[bkmg]?\s*", "give a size such as 4M"),
    "GOMP_CPU_AFFINITY": (rf"\s*{_CPUS}(?:[\s,]+{_CPUS})*\s*", "give numbers of CPUs such as 0-3"),
}


def check_environment() -> None:
    """Raises UsageError for the first variable that OpenMP could not make anything of."""
    for name, (allowed, words) in _RULES.items():
        value = os.environ.get(name)
        if value is not None and not re.fullmatch(allowed, value, re.IGNORECASE | re.ASCII):
            raise UsageError(f"{name} is {value!a:.80}; {words}, or unset it")
