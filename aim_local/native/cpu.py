"""Which CPU the library was built for, and which one this is: compared before anything is loaded.

A library for another CPU ends the process with an illegal instruction, perhaps while it is being loaded. What it needs
stands in its file as text, put there by patches/built-for.c. Features have the names of Linux' /proc/cpuinfo. Where one
side does not say, nothing is refused. A build with all variants (`make wheel`) has no single CPU: ggml chooses at load.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import NativeError

CPUINFO = Path("/proc/cpuinfo")
BUILD_HERE = "build on this machine: `pip install --force-reinstall .` in the source folder"
CURE = f"{BUILD_HERE}, or take the portable wheel of `make wheel`"

_MARK = re.compile(rb"aim-local built for:([ \w]*)\0")
_INSTRUCTIONS = re.compile("pni|s?sse|popcnt|abm|movbe|bmi|fma|f16c|avx|amx|gfni|xop|asimd|sve|sme$|bf16|i8mm|atomics")
# Linux lists these from that version on; an older kernel does not hide them, the CPU may have them all the same
_LISTED_SINCE = {
    "avx512_bf16": (5, 3), "avx512_fp16": (5, 11), "avx_vnni": (5, 12),
    "avx_ifma": (6, 2), "avx_vnni_int8": (6, 2), "avx_ne_convert": (6, 2),
}  # fmt: skip
# Windows tells only these (processthreadsapi.h, PF_...)
_WINDOWS = {"pni": 13, "ssse3": 36, "sse4_1": 37, "sse4_2": 38, "avx": 39, "avx2": 40, "avx512f": 41}
# macOS on Intel: names of sysctl machdep.cpu.*features where they are not ours in capitals
_MAC_INTEL = {
    "SSE3": "pni", "SSE4.1": "sse4_1", "SSE4.2": "sse4_2", "LZCNT": "abm", "AVX1.0": "avx", "AVX512VNNI": "avx512_vnni",
    "AVX512VBMI2": "avx512_vbmi2", "AVX512BITALG": "avx512_bitalg", "AVX512VPOPCNTDQ": "avx512_vpopcntdq",
}  # fmt: skip
# macOS on Apple silicon: sysctl hw.optional.arm.FEAT_... is 1
_MAC_ARM = {
    "atomics": "LSE", "asimdrdm": "RDM", "asimdhp": "FP16", "asimddp": "DotProd", "lrcpc": "LRCPC", "bf16": "BF16",
    "i8mm": "I8MM", "sme": "SME",
}  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """What a machine has. Missing is only what the system tells about: all but `untold`, or `told` alone if given."""

    has: frozenset[str]
    untold: frozenset[str] = frozenset()
    told: frozenset[str] | None = None

    def __str__(self) -> str:
        return " ".join(sorted(name for name in self.has if _INSTRUCTIONS.match(name))) or "no extensions"

    def lacks(self, features: Iterable[str]) -> list[str]:
        """Those of `features` that this CPU surely has not, in their order."""
        told = [name for name in features if name not in self.untold and (self.told is None or name in self.told)]
        return [name for name in told if name not in self.has]


def built_for(folder: Path) -> tuple[str, ...] | None:
    """Features that the CPU library in `folder` may use; None where the file does not say or there is none."""
    for name in ("libggml-cpu.so", "libggml-cpu.dylib", "ggml-cpu.dll"):
        path = folder / name
        if not path.is_file() or not path.stat().st_size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _MARK.search(data)
            names = tuple(found[1].decode().split()) if found else ()
        return names[1:] if names and names[0] != "unknown" else None  # the first is the architecture
    return None


def this_cpu() -> Cpu | None:
    """What this machine's CPU has and its system lets programs use; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows()
    if sys.platform == "darwin":
        return _mac()
    try:
        return from_cpuinfo(CPUINFO.read_text(), platform.release())
    except OSError:
        return None


def from_cpuinfo(text: str, kernel: str) -> Cpu | None:
    """Of /proc/cpuinfo: what all processors have. A flag that the kernel or a hypervisor hides is not there."""
    lines = set(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE))
    if not lines:
        return None
    has = frozenset.intersection(*(frozenset(line.split()) for line in lines))
    version = tuple(int(n) for n in re.findall(r"\d+", kernel)[:2])
    return Cpu(has, frozenset(name for name, since in _LISTED_SINCE.items() if version < since))


def refusal(folder: Path) -> str:
    """Why the CPU library in `folder` cannot run here: an instruction that this machine has not; else nothing."""
    features, cpu = built_for(folder), this_cpu()
    missing = cpu.lacks(features) if features is not None and cpu is not None else []
    if features is None or not missing:
        return ""
    built = " ".join(features)
    return f"the libraries in {folder} were built for a CPU with {built}; this machine has no {' '.join(missing)}"


def check(folder: Path) -> None:
    """Raises NativeError for a refusal, with what to do."""
    if why := refusal(folder):
        raise NativeError(f"{why}; {CURE}")


def _windows() -> Cpu | None:
    if sys.platform != "win32":  # for mypy: the API is known there only
        return None
    present = ctypes.windll.kernel32.IsProcessorFeaturePresent
    return Cpu(frozenset(name for name, number in _WINDOWS.items() if present(number)), told=frozenset(_WINDOWS))


def _mac() -> Cpu | None:
    if platform.machine() == "arm64":
        answers = {name: _sysctl(f"hw.optional.arm.FEAT_{feature}") for name, feature in _MAC_ARM.items()}
        told = frozenset(name for name, answer in answers.items() if answer)
        return Cpu(frozenset(name for name in told if any(answers[name])), told=told)
    texts = [_sysctl(f"machdep.cpu.{name}") for name in ("features", "leaf7_features", "extfeatures")]
    names = b" ".join(texts).replace(b"\0", b" ").decode().split()
    return Cpu(frozenset(_MAC_INTEL.get(name, name.lower()) for name in names)) if names else None


def _sysctl(name: str) -> bytes:
    """The raw value, or nothing where there is no such name."""
    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(4096)
    value = ctypes.create_string_buffer(size.value)
    failed = libc.sysctlbyname(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0))
    return b"" if failed else value.raw[: size.value]
