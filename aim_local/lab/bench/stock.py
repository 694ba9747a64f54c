"""The unpatched llama.cpp of the version that ours is made from: found in the cache, or built into it.

patches/ knows the pin, its hash and the flags; the build is the same CMake project with AIM_STOCK=ON. CMAKE_ARGS pass
through, so that both libraries can have the same backends.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...errors import NativeError
from ...native.installed import library_name
from ...store.names import cache_folder, make_folder

Say = Callable[[str], None]
GIVE = "name a folder with the unpatched libraries: stock_folder=FOLDER"


def find_stock(folder: Path | None, say: Say) -> Path:
    """The folder with the unpatched libraries: the given one, the cache's, or a new build there.

    Raises NativeError where they are not and cannot be built.
    """
    if folder is not None:
        if not (folder / library_name("llama")).is_file():
            raise NativeError(f"{folder} holds no {library_name('llama')}; {GIVE}")
        return folder.resolve()
    project = patches_folder()
    cached = stock_folder(project)
    if not (cached / library_name("llama")).is_file():
        build(project, cached, say)
    return cached


def patches_folder() -> Path:
    """patches/ of the source checkout. Raises NativeError for an installation without it."""
    import aim_local

    for folder in aim_local.__path__:
        candidate = Path(folder).resolve().parent / "patches"
        if (candidate / "VERSION").is_file() and (candidate / "CMakeLists.txt").is_file():
            return candidate
    raise NativeError(f"the unpatched library is built from the source checkout, which is not here; {GIVE}")


def stock_folder(project: Path) -> Path:
    """Where the build for this pin and these flags is kept."""
    pin = [line for line in (project / "VERSION").read_text().splitlines() if not line.startswith("patch ")]
    key = "\n".join(pin) + os.environ.get("CMAKE_ARGS", "")
    return cache_folder() / "bench" / f"stock-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def build(project: Path, target: Path, say: Say) -> None:
    """Compiles the unpatched library into `target`, which appears whole or not at all. Raises NativeError."""
    cmake, ninja = _tool("cmake"), _tool("ninja")
    make_folder(target.parent)
    say("building the unpatched library once, about 6 minutes on 2 cores (AIM_LLAMA_SDIST names a downloaded source)")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".stock-") as temporary:
        work = Path(temporary)
        configure = [
            cmake, "-S", str(project), "-B", str(work / "build"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
            "-DAIM_STOCK=ON", "-DCMAKE_BUILD_TYPE=Release", f"-DPython3_EXECUTABLE={sys.executable}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        install = ["--install", str(work / "build"), "--component", "aim_local", "--prefix", str(work / "out")]
        _run(configure)
        _run([cmake, "--build", str(work / "build")])
        _run([cmake, *install])
        os.replace(work / "out" / "aim_local" / "lib", target)


def _tool(name: str) -> str:
    """A build tool, from this Python's environment or the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise NativeError(
            f"building the unpatched library needs {name}; "
            f"run `pip install -e '.[test]'` in the source folder, or {GIVE}"
        )
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if "rror" in line] or ["no reason given"]
        raise NativeError(f"building the unpatched library failed ({lines[0]}); {GIVE}")
