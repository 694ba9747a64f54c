"""The native edge: finds our libraries, loads them if they suit this machine, and binds the upstream API to them.

That API comes from llama-cpp-python's bindings, taken from the very source that the libraries are built from. Our own
functions (prefix aim_) are declared in staged.py and visual.py.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import NativeError
from . import aborts, cpu, openmp
from .bindings import import_bindings
from .guarded import guard
from .installed import library_folder, library_name
from .outcome import Outcome

PATCH_VERSION = 7  # the `patch` line of patches/VERSION; a test compares the two


def _load() -> tuple[ModuleType, ModuleType, Path, tuple[str, ...]]:
    folder = library_folder()
    cpu.check(folder)
    openmp.check_environment()
    aborts.before_loading()
    try:
        base, ggml = _open("ggml-base", folder), _open("ggml", folder)
        aborts.install(base)
        check_joined(ggml, base, "ggml_log_set")
        backends = load_backends(base, ggml, folder)
        llama, mtmd = import_bindings(lambda name, _: _open(name, folder))
    except (OSError, AttributeError) as e:
        raise NativeError(f"the libraries in {folder} do not load ({e}); reinstall aim-local") from e
    check_patch(llama._lib, "aim_llama_patch_version", "libllama")
    check_patch(mtmd._libmtmd, "aim_mtmd_patch_version", "libmtmd")
    check_joined(llama._lib, ggml, "ggml_backend_dev_count")
    return llama, mtmd, folder, backends


def _open(base: str, folder: Path) -> ctypes.CDLL:
    if sys.platform == "win32":
        os.add_dll_directory(str(folder))
        for variable in ("CUDA_PATH", "HIP_PATH"):
            if (bin_folder := Path(os.environ.get(variable, ""), "bin")).is_absolute() and bin_folder.is_dir():
                os.add_dll_directory(str(bin_folder))
    return ctypes.CDLL(str(folder / library_name(base)))


def load_backends(base: ctypes.CDLL, ggml: ctypes.CDLL, folder: Path) -> tuple[str, ...]:
    """Loads the backends that are files of their own, the best of the CPU's for this machine; returns the files' names.

    Only a portable build has such files (GGML_BACKEND_DL); in others libggml is linked with its backends, and this does
    nothing. Raises NativeError if none of the CPU's variants runs here.
    """
    if hasattr(ggml, "ggml_backend_cpu_reg"):
        return ()
    lines: list[str] = []
    # typedef void (*ggml_log_callback)(enum ggml_log_level level, const char * text, void * user_data);
    log_type = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    collect = log_type(lambda level, text, data: lines.append(text.decode(errors="replace")))
    base.ggml_log_set.argtypes, base.ggml_log_set.restype = [log_type, ctypes.c_void_p], None
    ggml.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_load_all_from_path.restype = None
    base.ggml_log_set(collect, None)
    try:
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder))
    finally:
        base.ggml_log_set(log_type(), None)  # ggml's own again
    found = re.findall(r"loaded \S+ backend from (.+)", "".join(lines))
    if sys.platform != "win32" and not any("ggml-cpu" in path for path in found):
        raise NativeError(f"no CPU backend in {folder} runs on this machine; {cpu.BUILD_HERE}")
    return tuple(Path(path).name for path in found)


def check_patch(lib: ctypes.CDLL, symbol: str, name: str) -> None:
    """Raises NativeError unless `lib` is our build of the patch version this Python code was written for."""
    where = getattr(lib, "_name", "?")
    try:
        function = getattr(lib, symbol)
    except AttributeError as e:
        cure = "unset AIM_LOCAL_LIB or reinstall aim-local so that its own libraries are found"
        raise NativeError(f"{where} is a stock {name} without the aim-local patches; {cure}") from e
    function.restype = ctypes.c_int32
    found = function()
    if found != PATCH_VERSION:
        raise NativeError(f"{where} has patch version {found}, version {PATCH_VERSION} is needed; reinstall aim-local")


def check_joined(user: ctypes.CDLL, library: ctypes.CDLL, function: str) -> None:
    """Raises NativeError if `user` takes `function` from another copy of `library`.

    A stock llama.cpp may be in the same process: ctypes loads it for itself (RTLD_LOCAL), and llama-cpp-python's own
    build has other sonames. A library of our soname that was loaded earlier would take the place of ours.
    """
    if sys.platform == "win32":  # a handle finds its own functions only
        return
    used, ours = (ctypes.cast(getattr(lib, function), ctypes.c_void_p).value for lib in (user, library))
    if used != ours:
        raise NativeError(
            f"{user._name} was joined to another {Path(library._name).name}, which this program had loaded earlier; "
            "import aim_local first"
        )


llama: Any
mtmd: Any
llama, mtmd, LIB_FOLDER, BACKENDS = _load()  # BACKENDS: files that ggml chose at load, none in an ordinary build
libllama: ctypes.CDLL = llama._lib
libmtmd: ctypes.CDLL = mtmd._libmtmd
# const char * aim_last_error(void)
# int32_t      aim_last_status(void)
LLAMA = Outcome(libllama, "aim_last_error", "aim_last_status")
# const char * aim_mtmd_last_error(void)
# int32_t      aim_mtmd_last_status(void)
MTMD = Outcome(libmtmd, "aim_mtmd_last_error", "aim_mtmd_last_status")
GUARDED = guard(llama, libllama, "aim_guarded_call", LLAMA) | guard(mtmd, libmtmd, "aim_mtmd_guarded_call", MTMD)
