"""One product or one attention of our CPU kernels by itself: for tests and measurements.

The C interface is in patches/overlay/tools/mtmd/aim-mtmd.h: aim_probe_*.
"""

from __future__ import annotations

from ctypes import POINTER, Structure, c_char_p, c_float, c_int32, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .binding import bind, type_number
from .library import MTMD, libmtmd

Floats = NDArray[np.float32]

ACTS = ("none", "gelu", "gelu_erf", "gelu_quick", "silu", "relu")
_PRECISIONS = ("exact", "bf16", "int8")
_floats = POINTER(c_float)


class _Product(Structure):
    """struct aim_probe_product_params"""

    _fields_ = (
        *((name, c_int32) for name in ("precision", "n_threads", "m", "k", "n", "act")),
        *((name, _floats) for name in ("x", "w", "norm_weight", "bias", "gamma", "residual")),
    )


class _Stored(Structure):
    """struct aim_probe_stored_params"""

    _fields_ = (
        *((name, c_int32) for name in ("precision", "n_threads", "m", "k", "n", "type")),
        ("buffer", c_char_p),
        ("x", _floats),
        ("w", c_void_p),
    )


class _Attention(Structure):
    """struct aim_probe_attention_params"""

    _fields_ = (
        *((n, c_int32) for n in ("precision", "n_threads", "d", "n_q", "n_kv", "n_head", "n_head_kv", "kv_type")),
        ("scale", c_float),
        *((name, _floats) for name in ("q", "k", "v", "mask")),
    )


# int32_t aim_probe_product(const struct aim_probe_product_params * params, float * out)
_probe_product = bind(libmtmd, "aim_probe_product", [POINTER(_Product), _floats])
# int32_t aim_probe_stored(const struct aim_probe_stored_params * params, float * out)
_probe_stored = bind(libmtmd, "aim_probe_stored", [POINTER(_Stored), _floats])
# int32_t aim_probe_attention(const struct aim_probe_attention_params * params, float * out)
_probe_attention = bind(libmtmd, "aim_probe_attention", [POINTER(_Attention), _floats])


def product(
    x: Floats,
    w: Floats,
    *,
    precision: str,
    n_threads: int = 1,
    act: str = "none",
    norm_weight: Floats | None = None,
    bias: Floats | None = None,
    gamma: Floats | None = None,
    residual: Floats | None = None,
) -> Floats:
    """residual + gamma * act(norm(x) w^T + bias) as a tower's graph computes it; float32 [m, k], [n, k] -> [m, n].

    Raises UsageError for values that are not finite, NativeError where this CPU has no kernels for the precision.
    """
    (m, k), n = x.shape, w.shape[0]
    out = np.empty((m, n), np.float32)
    keep = [
        None if a is None else np.ascontiguousarray(a, np.float32) for a in (x, w, norm_weight, bias, gamma, residual)
    ]
    params = _Product(_PRECISIONS.index(precision), n_threads, m, k, n, ACTS.index(act), *map(_pointer, keep))
    MTMD.checked(_probe_product(params, _pointer(out)))
    return out


def stored_product(
    x: Floats, w: NDArray[np.uint8], kind: int, buffer: str, *, precision: str = "bf16", n_threads: int = 1
) -> Floats:
    """x w^T of a language model's weight; float32 [m, k] and quantised rows [n, bytes] -> [m, n].

    kind: enum ggml_type. buffer: where the weight is put, "CPU", "CPU_REPACK" or "AMX". Raises ModelError where
    this CPU has none, or it does not take the type.
    """
    (m, k), n = x.shape, len(w)
    out = np.empty((m, n), np.float32)
    x, w = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(w)
    sizes = (_PRECISIONS.index(precision), n_threads, m, k, n, kind)
    params = _Stored(*sizes, buffer.encode(), _pointer(x), w.ctypes.data)
    MTMD.checked(_probe_stored(params, _pointer(out)))
    return out


def attention(
    q: Floats,
    k: Floats,
    v: Floats,
    *,
    precision: str,
    mask: Floats | None = None,
    scale: float = 1.0,
    kv_type: str = "f16",
    n_threads: int = 1,
) -> Floats:
    """softmax(scale q k^T + mask) v; float32 q [n_head, n_q, d], k, v [n_head_kv, n_kv, d] -> [n_q, n_head, d]."""
    n_head, n_q, d = q.shape
    out = np.empty((n_q, n_head, d), np.float32)
    keep = [_floats32(array) for array in (q, k, v, mask)]
    sizes = (n_threads, d, n_q, k.shape[1], n_head, k.shape[0], type_number(kv_type))
    params = _Attention(_PRECISIONS.index(precision), *sizes, scale, *map(_pointer, keep))
    MTMD.checked(_probe_attention(params, _pointer(out)))
    return out


def _floats32(array: Floats | None) -> Floats | None:
    return None if array is None else np.ascontiguousarray(array, np.float32)


def _pointer(array: Floats | None) -> Any:
    return None if array is None else array.ctypes.data_as(_floats)
