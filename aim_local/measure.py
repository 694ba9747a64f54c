"""Numbers measured several times, and the machine they were measured on. Knows no models."""

from __future__ import annotations

import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, least and largest of n measurements, in the unit of what was measured."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("no measurements")
        return cls(float(statistics.median(values)), float(min(values)), float(max(values)), len(values))


def machine() -> dict[str, Any]:
    """Where figures come from: processor, usable cores, memory, system, versions. Plain values for JSON."""
    from importlib.metadata import version

    from .doctor import memory_bytes, processor
    from .text import physical_cores

    return {
        "processor": processor(),
        "physical_cores": physical_cores(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "aim_local": version("aim-local"),
        "llama_cpp_python": version("llama-cpp-python"),
    }


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
