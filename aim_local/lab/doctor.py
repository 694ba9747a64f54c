"""The facts `aim-local doctor` prints: versions, libraries, devices, models, and what is wrong with them.

Must work where the installation does not: every fact is gathered on its own, a failure becomes its value or a problem.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models.template_process import described_bounds

NOT_INSTALLED = "not installed"
REINSTALL = "run in the source folder: pip install --force-reinstall -e ."
NATIVE = "aim_local.native.library"  # in sys.modules once the libraries are loaded
PACKAGES = ("gguf", "numpy", "av", "pillow", "typer", "rich", "prompt-toolkit", "platformdirs")
OPTIONAL = ("torch", "transformers", "safetensors")  # for `convert`; looked up, never imported


@dataclass(frozen=True)
class Problem:
    """Something that keeps aim-local from working, and what to do about it."""

    what: str
    cure: str


@dataclass
class Report:
    """sections: title -> name -> value, plain values only."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": not self.problems, **self.sections, "problems": [asdict(p) for p in self.problems]}

    def problem(self, what: str, cure: str) -> None:
        self.problems.append(Problem(" ".join(what.split()), cure))


def examine() -> Report:
    """Look at this installation. Raises nothing."""
    report = Report()
    for title, look in (
        ("versions", _versions),
        ("native libraries", _libraries),
        ("machine", _machine),
        ("devices", _devices),
        ("models", _models),
    ):
        report.sections[title] = {}
        try:
            look(report, report.sections[title])
        except Exception as e:  # the doctor must not fall ill: whatever happens is a finding
            report.problem(f"{title} cannot be examined ({type(e).__name__}: {e})", REINSTALL)
    return report


def _versions(report: Report, facts: dict[str, Any]) -> None:
    facts["aim-local"] = _version("aim-local")
    facts["python"] = f"{platform.python_version()} ({sys.executable})"
    pins = _pins()
    for package in PACKAGES:
        found = facts[package] = _version(package)
        if found == NOT_INSTALLED:
            report.problem(f"{package} is not installed", f"run: pip install '{package}{pins.get(package, '')}'")
        elif pins.get(package, "").startswith("==") and found != pins[package][2:]:
            pin = pins[package]
            report.problem(
                f"{package} is {found}, this aim-local needs {pin[2:]}", f"run: pip install '{package}{pin}'"
            )
    facts["llama-cpp-python"] = _bindings(report)
    facts["ffmpeg (in av)"] = _ffmpeg(report)
    for package in OPTIONAL:
        found = _version(package)
        facts[package] = found if found != NOT_INSTALLED else "not installed (only `convert` may need it)"


def _bindings(report: Report) -> str:
    from ..native.bindings import bindings_version

    try:
        return f"{bindings_version()} (its bindings, part of aim-local)"
    except Exception as e:
        report.problem(_one_line(e), REINSTALL)
        return NOT_INSTALLED


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _pins() -> dict[str, str]:
    """Package -> version condition, as aim-local's own metadata says."""
    try:
        lines = metadata.requires("aim-local") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w.-]+)\s*([<>=!~][^;]*)?", line) for line in lines if "extra ==" not in line)
    return {m[1].lower(): (m[2] or "").strip() for m in found if m}


def _ffmpeg(report: Report) -> str:
    try:
        import av

        return ", ".join(
            f"{name} {'.'.join(map(str, v))}"
            for name, v in av.library_versions.items()
            if name in ("libavcodec", "libavformat")
        )
    except Exception as e:  # a broken wheel fails in many ways
        if _version("av") != NOT_INSTALLED:
            report.problem(f"PyAV does not load ({type(e).__name__}: {e})", "run: pip install --force-reinstall av")
        return "does not load"


def _libraries(report: Report, facts: dict[str, Any]) -> None:
    if os.environ.get("AIM_LOCAL_LIB"):
        facts["AIM_LOCAL_LIB"] = os.environ["AIM_LOCAL_LIB"]
    try:
        if not _suitable(report, facts):
            return
        from ..native import library
    except Exception as e:
        facts["state"] = "do not load"
        report.problem(_one_line(e), REINSTALL)
        return
    facts["libllama"] = str(library.libllama._name)
    facts["libmtmd"] = str(library.libmtmd._name)
    facts["ours"] = True  # library.py refuses any other
    facts["patch version"] = library.PATCH_VERSION
    if library.BACKENDS:
        facts["chosen at load"] = ", ".join(library.BACKENDS)


def _suitable(report: Report, facts: dict[str, Any]) -> bool:
    """Whether the libraries may be loaded on this CPU. Raises NativeError where there are none."""
    from ..native import cpu
    from ..native.installed import library_folder

    folder = library_folder()
    features = cpu.built_for(folder)
    facts["folder"] = str(folder)
    facts["built for"] = " ".join(features) if features is not None else "no CPU in particular, or not recorded"
    facts["this machine has"] = str(cpu.this_cpu() or "not told by the system")
    if why := cpu.refusal(folder):
        facts["state"] = "refused: built for another CPU"
        report.problem(why, cpu.CURE)
    return not why


def _one_line(e: Exception) -> str:
    from ..errors import AimError

    return str(e) if isinstance(e, AimError) else f"{type(e).__name__}: {e}"


def _machine(report: Report, facts: dict[str, Any]) -> None:
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    facts["processor"] = processor()
    facts["cores"] = f"{_usable_cores()} usable of {os.cpu_count()}"
    memory = memory_bytes()
    facts["memory"] = f"{memory / 2**30:.1f} GiB" if memory else "unknown"
    facts["chat templates"] = described_bounds()
    native = sys.modules.get(NATIVE)
    if native is not None:
        from ..native import kernels

        facts["cpu features"] = cpu_features(native.llama.llama_print_system_info().decode())
        facts["vision kernels"] = kernels.described(kernels.resolved("auto"))
        facts["prefill kernels"] = kernels.described_prefill("auto")


def cpu_features(info: str) -> str:
    """The features that llama.cpp's system info reports as on: "AVX2 FMA ..."."""
    return " ".join(m[1] for m in re.finditer(r"(\w+) = 1\b", info)) or info.strip()


def processor() -> str:
    """Name of the processor, or "unknown"."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no /proc: not Linux
    return platform.processor() or "unknown"


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Physical memory, or less where a container may use less; None where the platform does not say."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return total
    return min(total, limit)


def _devices(report: Report, facts: dict[str, Any]) -> None:
    native = sys.modules.get(NATIVE)
    if native is None:
        facts["found"] = "unknown, the libraries do not load"
        return
    from ..native.devices import device_names, has_gpu
    from ..native.rpc import is_built

    facts["gpu offload"] = has_gpu()
    facts["rpc"] = is_built()
    for number, device in enumerate(device_names()):
        facts[f"device {number}"] = device
    if "device 0" not in facts:
        report.problem("ggml has no backend, not even the CPU's", REINSTALL)


def _models(report: Report, facts: dict[str, Any]) -> None:
    from .. import store

    folder = store.bundled_folder()
    facts["bundled"] = str(folder) if folder else "missing"
    if folder is None:
        report.problem("the bundled model is missing", REINSTALL)
    facts["store"] = str(store.models_folder())
    try:
        entries = store.list_models()
    except ModelError as e:  # the folder of the store; a model's own fault is in its entry
        what, _, cure = str(e).partition("; ")
        report.problem(what, cure)
        return
    facts["in store"] = sum(not entry.bundled for entry in entries)
    for entry in entries:
        if entry.problem:
            report.problem(f"model {entry.name}: {entry.problem}", f"remove or replace {entry.path}")
    blocked = _not_writable(store.models_folder())
    if blocked:
        report.problem(
            f"the store cannot be written: {blocked}", f"change its permissions or set {store.HOME_VARIABLE}"
        )


def _not_writable(folder: Path) -> Path | None:
    """The nearest existing parent of `folder` where nothing can be written; None if all is well. Creates nothing."""
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    return None if folder.is_dir() and os.access(folder, os.W_OK) else folder
