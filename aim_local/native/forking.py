"""Forks of a process that computes: the child can load a model of its own.

OpenMP keeps the threads of a computation for the next one, and a fork does not copy threads: a child that computes
would wait for them for ever. They are let go before each fork, and come back with the next computation.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import NativeError
from .library import BACKENDS, LIB_FOLDER, libllama

_HARD = 2  # omp_pause_hard
_state = {"stuck": False}


def _pause() -> Callable[[int], int] | None:
    """int omp_pause_resource_all(omp_pause_resource_t kind), of the OpenMP that ggml's CPU backend computes with."""
    libraries = [libllama, *(ctypes.CDLL(str(Path(LIB_FOLDER) / name)) for name in BACKENDS if "cpu" in name)]
    for library in libraries:  # a library finds what it was linked with
        function: Callable[[int], int] | None = getattr(library, "omp_pause_resource_all", None)
        if function is not None:
            return function
    return None


def check() -> None:
    """Before a model is loaded. Raises NativeError in a process that was forked in the middle of a computation."""
    if _state["stuck"]:
        raise NativeError(
            "this process was forked while its parent computed in the same thread, and cannot compute; fork before or "
            'after, or start it with multiprocessing\'s "spawn"'
        )


def _install() -> None:
    pause = _pause()
    if pause is None or not hasattr(os, "register_at_fork"):
        return
    held = {"is": False}

    def before() -> None:
        held["is"] = pause(_HARD) != 0

    def in_child() -> None:
        _state["stuck"] = _state["stuck"] or held["is"]

    os.register_at_fork(before=before, after_in_child=in_child)


_install()
