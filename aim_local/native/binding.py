"""Functions and structs of our C interfaces in Python: declared once, refused at load where the library differs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import NativeError

_CURE = "reinstall aim-local as a whole"


def bind(lib: ctypes.CDLL, name: str, argtypes: Sequence[Any], restype: Any = ctypes.c_int32) -> Callable[..., Any]:
    """The function `name` of `lib`. Raises NativeError for a library that lacks it."""
    try:
        function = getattr(lib, name)
    except AttributeError as e:
        raise NativeError(f"{lib._name} has no {name}, it was built from another version of aim-local; {_CURE}") from e
    function.argtypes, function.restype = list(argtypes), restype
    bound: Callable[..., Any] = function
    return bound


def check_size(lib: ctypes.CDLL, name: str, struct: type[ctypes.Structure]) -> None:
    """Raises NativeError unless `name`, the library's sizeof of a struct, is the size of ours."""
    found, ours = bind(lib, name, [])(), ctypes.sizeof(struct)
    if found != ours:
        raise NativeError(f"{lib._name}: {name}() is {found} bytes, aim_local was written for {ours}; {_CURE}")


def type_number(name: str) -> int:
    """The number of a ggml type, named as in LoadConfig.type_k."""
    from gguf import GGMLQuantizationType  # numpy comes with it, which rehearsal_child.py has no time for

    return int(GGMLQuantizationType[name.upper()])
