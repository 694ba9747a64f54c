"""Numbers measured several times, and the machine they were measured on. Knows no models."""

from __future__ import annotations

import contextlib
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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

    @property
    def width(self) -> float:
        """From least to largest, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def paired_ratio(reference: Sequence[float], other: Sequence[float]) -> Spread:
    """reference / other, round by round: how many times less the other took. Raises ValueError for unequal lengths.

    What else the machine does changes from round to round and hits both sides of a round alike.
    """
    return Spread.of([a / b for a, b in zip(reference, other, strict=True)])


def machine() -> dict[str, Any]:
    """Where figures come from: processor, usable cores, memory, system, versions. Plain values for JSON."""
    from ..models.threads import physical_cores
    from ..native.bindings import bindings_version
    from .doctor import memory_bytes, processor

    return {
        "processor": processor(),
        "physical_cores": physical_cores(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "aim_local": _own_version(),
        "llama_cpp_python": bindings_version(),
    }


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("aim-local")
    except PackageNotFoundError:  # run from its folder
        return "not installed"


def reset_peak_rss() -> bool:
    """Makes peak_rss_bytes begin again at what is resident now. False where the system cannot (Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not tell (Windows)."""
    with contextlib.suppress(OSError):  # Linux; its getrusage counts what the parent held at the start as ours
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
