"""The native edge: finds our libllama and libmtmd, makes llama_cpp load them, and declares the functions we added.

Everything ctypes is in this file. The upstream API comes from llama_cpp's bindings, whose version is pinned to the
library we build; our own functions (prefix aim_) take and return plain C types only.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import NativeError

PATCH_VERSION = 1  # the `patch` line of patches/VERSION; a test compares the two


def library_name(base: str) -> str:
    """File name of a shared library on this platform."""
    if sys.platform == "win32":
        return f"{base}.dll"
    return f"lib{base}.dylib" if sys.platform == "darwin" else f"lib{base}.so"


def library_folder() -> Path:
    """Folder with our libllama and libmtmd: AIM_LOCAL_LIB, or lib/ beside the installed package."""
    override = os.environ.get("AIM_LOCAL_LIB")
    if override:
        candidates = [Path(override)]
    else:
        import aim_local

        # an editable install has its sources and its compiled files in different folders of __path__
        candidates = [Path(folder) / "lib" for folder in aim_local.__path__]
        candidates += [Path(folder) / "aim_local" / "lib" for folder in sys.path]
    for folder in candidates:
        if (folder / library_name("llama")).is_file():
            return folder
    raise NativeError(
        f"no {library_name('llama')} in {candidates[0]}; the C++ part is not built: "
        "run `pip install .` in the source folder"
    )


def _load() -> tuple[ModuleType, ModuleType, Path]:
    folder = library_folder()
    loaded = sys.modules.get("llama_cpp.llama_cpp")
    if loaded is None:
        os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
        os.environ["MTMD_CPP_LIB"] = str(folder)
    try:
        import llama_cpp.llama_cpp as llama
        import llama_cpp.mtmd_cpp as mtmd
    except (OSError, RuntimeError, FileNotFoundError, AttributeError) as e:
        raise NativeError(f"the libraries in {folder} do not load ({e}); reinstall aim-local") from e
    check_patch(llama._lib, "aim_llama_patch_version", "libllama", loaded is not None)
    check_patch(mtmd._libmtmd, "aim_mtmd_patch_version", "libmtmd", loaded is not None)
    return llama, mtmd, folder


def check_patch(lib: ctypes.CDLL, symbol: str, name: str, imported_earlier: bool) -> None:
    """Raises NativeError unless `lib` is our build of the patch version this Python code was written for."""
    where = getattr(lib, "_name", "?")
    try:
        function = getattr(lib, symbol)
    except AttributeError as e:
        cure = (
            "import aim_local before llama_cpp"
            if imported_earlier
            else "unset AIM_LOCAL_LIB or reinstall aim-local so that its own libraries are found"
        )
        raise NativeError(f"{where} is a stock {name} without the aim-local patches; {cure}") from e
    function.restype = ctypes.c_int32
    found = function()
    if found != PATCH_VERSION:
        raise NativeError(f"{where} has patch version {found}, version {PATCH_VERSION} is needed; reinstall aim-local")


llama: Any
mtmd: Any
llama, mtmd, LIB_FOLDER = _load()
libllama: ctypes.CDLL = llama._lib
libmtmd: ctypes.CDLL = mtmd._libmtmd
