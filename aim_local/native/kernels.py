"""Our CPU kernels for prefill's products: which this machine runs, and what a precision means with them.

The C interface is in patches/overlay/tools/mtmd/aim-mtmd.h, the kernels in patches/overlay/ggml/src/ggml-cpu/aim.
"""

from __future__ import annotations

import os
from ctypes import c_char_p, c_int32, c_void_p
from typing import Any

from ..errors import AimError, NativeError
from .binding import bind
from .library import LLAMA, MTMD, libllama, libmtmd

_EXACT, _SIXTEEN, _INT8 = 0, 1, 2  # enum aim_precision

# int32_t aim_mtmd_set_precision(int32_t precision)
_set_precision = bind(libmtmd, "aim_mtmd_set_precision", [c_int32])
# int32_t aim_mtmd_precision(mtmd_context * ctx)
_precision = bind(libmtmd, "aim_mtmd_precision", [c_void_p])
# const char * aim_mtmd_kernels(void)
_kernels = bind(libmtmd, "aim_mtmd_kernels", [], c_char_p)
# int32_t aim_mtmd_use_kernels(const char * name)
_use_kernels = bind(libmtmd, "aim_mtmd_use_kernels", [c_char_p])

# int32_t aim_set_precision(struct llama_context * ctx, int32_t precision)
_set_context_precision = bind(libllama, "aim_set_precision", [c_void_p, c_int32])

VARIABLE = "AIM_LOCAL_KERNELS"
NAMES = ("amx", "avx512-vnni", "avx-vnni", "avx512", "avx2")  # the fastest first
EXACT = "exact (llama.cpp's kernels)"
_FAST_INT8 = ("amx", "avx512-vnni", "avx-vnni")  # sixteen bits take 1.4 to 2 times as long there


def kernels() -> str:
    """Name of the kernels in use, one of NAMES; "" where this CPU has none of ours and llama.cpp's compute all."""
    return str((_kernels() or b"").decode())


def use_kernels(name: str | None) -> None:
    """Other kernels for towers loaded afterwards, None: the fastest, "": none. Raises where the CPU lacks them.

    Only while nothing is loaded or computed: threads that are at it would go on with others. A whole process is given
    them by the environment variable AIM_LOCAL_KERNELS.
    """
    MTMD.checked(_use_kernels(None if name is None else name.encode()))


def _use_named(name: str) -> None:
    """Raises NativeError."""
    if name and name not in NAMES:
        allowed = f"{', '.join(NAMES)}, or nothing for llama.cpp's own"
        raise NativeError(f"{VARIABLE} is {name!r}; allowed are {allowed}")
    try:
        use_kernels(name)
    except AimError as e:
        raise NativeError(f"{VARIABLE} is {name}: {e}; unset it to get {kernels()}") from e


if (_named := os.environ.get(VARIABLE)) is not None:
    _use_named(_named)


def resolved(precision: str) -> str:
    """What a vision_precision becomes on this CPU: "exact", "bf16" (16 bits) or "int8"."""
    if not kernels():
        return "exact"
    if precision != "auto":
        return precision
    return "int8" if kernels() in _FAST_INT8 else "bf16"


def load_with(precision: str) -> None:
    """The next tower that this thread loads is computed so. precision: see resolved()."""
    MTMD.checked(_set_precision({"exact": _EXACT, "bf16": _SIXTEEN, "int8": _INT8}[resolved(precision)]))


def compute_with(llama_context: Any, precision: str) -> None:
    """How this context's prefill is computed from now on. "exact", or "auto": what this CPU is fast with."""
    fast = precision != "exact" and bool(kernels())
    LLAMA.checked(_set_context_precision(llama_context, _SIXTEEN if fast else _EXACT))


def precision_of(context: Any) -> str:
    """How the tower of an mtmd_context is computed, as in resolved(); "exact" on a GPU."""
    return ("exact", "bf16", "int8")[MTMD.checked(_precision(context))]


def described(precision: str) -> str:
    """For people: the arithmetic and the kernels of a tower with a resolved precision."""
    name = kernels()
    if precision == "exact" or not name:
        return EXACT
    return f"int8 ({name})" if precision == "int8" and name in _FAST_INT8 else _wide(name)


def described_prefill(precision: str) -> str:
    """The same for a language model's prefill on the CPU. precision: as in compute_with."""
    name = kernels()
    if precision == "exact" or not name:
        return EXACT
    return _wide(name)


def _wide(name: str) -> str:
    return f"{'bf16' if name == 'amx' else 'int16'} ({name})"
