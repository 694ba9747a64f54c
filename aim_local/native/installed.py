"""Where the compiled part of the package is: our libraries, the bindings, llama.cpp's converter. Loads nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import NativeError

NOT_BUILT = "the C++ part is not built: run `pip install .` in the source folder"


def library_name(base: str) -> str:
    """File name of a shared library on this platform."""
    if sys.platform == "win32":
        return f"{base}.dll"
    return f"lib{base}.dylib" if sys.platform == "darwin" else f"lib{base}.so"


def library_folder() -> Path:
    """Folder with our libllama and libmtmd: AIM_LOCAL_LIB, or lib/ of the package. Raises NativeError without them."""
    override = os.environ.get("AIM_LOCAL_LIB")
    candidates = [Path(override)] if override else _folders("lib")
    return _first(candidates, library_name("llama"))


def library_files() -> list[Path]:
    """Our libraries and those they load, sorted by name. Raises NativeError without them."""
    suffixes = (".so", ".dll", ".dylib")
    return sorted(path for path in library_folder().iterdir() if path.is_file() and path.suffix in suffixes)


def bindings_folder() -> Path:
    """Folder with the package llama_cpp, copied from the pinned source. Raises NativeError where it is not."""
    return _first(_folders("bindings"), "llama_cpp/llama_cpp.py")


def converter_folder() -> Path:
    """Folder with the pinned llama.cpp's converter: conversion/, gguf-py/gguf/. Raises NativeError without it."""
    override = os.environ.get("AIM_LOCAL_LIB")
    beside = [Path(override).parent / "upstream"] if override else []
    return _first([*beside, *_folders("upstream")], "conversion/base.py")


def _folders(part: str) -> list[Path]:
    """An editable install has its sources and its compiled files in different folders: both, and all of sys.path."""
    import aim_local

    beside = [Path(folder) / part for folder in aim_local.__path__]
    return beside + [Path(folder) / "aim_local" / part for folder in sys.path]


def _first(candidates: list[Path], file: str) -> Path:
    for folder in candidates:
        if (folder / file).is_file():
            return folder.resolve()
    raise NativeError(f"no {file} in {candidates[0]}; {NOT_BUILT}")
