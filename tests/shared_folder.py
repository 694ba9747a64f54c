"""What is made once in a run of the tests, by whichever of its processes comes first, and read by all of them.

folder = made_once(tmp_path_factory, "qwen", write)  # write(folder) fills it; nobody changes it later
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of that name for this run. `make` gets it empty, under another name: no path of it may be kept in it."""
    root = folders.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "shared"
    root.mkdir(exist_ok=True)
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not folder.exists():
            making = root / f"{name}.new"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make(making)
            making.rename(folder)
    return folder
