"""Functions of llama.h and mtmd.h that throw no C++ exception: one that comes out in ctypes would end the process.

Which ones there are stands in patches/overlay (aim-calls.cpp, aim-mtmd-calls.cpp). Each takes the place of the plain
one in our bindings, so nothing of ours can call that one. Here their failures become exceptions of Python.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int32, c_void_p
from typing import Any

from . import callbacks
from .binding import bind
from .outcome import Outcome


def guard(bindings: Any, library: ctypes.CDLL, table: str, outcome: Outcome) -> frozenset[str]:
    """Puts the guarded functions of `table` into the module `bindings`; returns their names.

    They raise NativeError for what was thrown; where memory ran out, it says so, and what to do.
    """
    # const char * aim_guarded_call(int32_t i, void ** call)
    look_up = bind(library, table, [c_int32, POINTER(c_void_p)], c_char_p)
    call, names = c_void_p(), set[str]()
    while found := look_up(len(names), ctypes.byref(call)):
        name = found.decode()
        setattr(bindings, name, _guarded(getattr(bindings, name), call, name, outcome))
        names.add(name)
    return frozenset(names)


def _guarded(plain: Any, call: c_void_p, name: str, outcome: Outcome) -> Any:
    function: Any = ctypes.cast(call, ctypes.CFUNCTYPE(plain.restype, *plain.argtypes))

    def check(result: Any, _function: Any, _arguments: Any) -> Any:
        if outcome.failed():
            callbacks.reraise()
            raise outcome.error(name)
        return result

    function.errcheck = check
    return function
