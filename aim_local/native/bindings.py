"""Imports llama-cpp-python's ctypes bindings, which our build copies from the pinned source.

They are a package of ours under a name of ours, so a llama_cpp installed beside them is neither needed nor touched, and
no environment variable says which library they are for. What is loaded is library.py's matter. In another process
`import llama_cpp` gives these very files if PYTHONPATH is `bindings_folder()`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .installed import bindings_folder

NAME = "aim_local.llama_cpp_bindings"  # in sys.modules


def bindings_version() -> str:
    """Version of llama-cpp-python they are from. Loads no library. Raises NativeError where they are not."""
    version: str = _package().__version__
    return version


def import_bindings(load: Callable[[str, Path], Any]) -> tuple[ModuleType, ModuleType]:
    """(llama_cpp, mtmd_cpp), each on the library that load("llama" or "mtmd", _) returns."""
    _package()
    extensions: Any = importlib.import_module(f"{NAME}._ctypes_extensions")
    extensions.load_shared_library = load  # both modules take it from there when they are imported
    return importlib.import_module(f"{NAME}.llama_cpp"), importlib.import_module(f"{NAME}.mtmd_cpp")


def _package() -> Any:
    if NAME not in sys.modules:
        folder = bindings_folder() / "llama_cpp"
        spec = importlib.util.spec_from_file_location(
            NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[NAME] = module
    return sys.modules[NAME]
