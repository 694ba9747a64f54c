"""Whether the numbers of a saved KV cache are numbers: keys, values and held rows, found by the state's layout.

A file that anybody wrote may hold NaN or infinity; what is computed from them says nothing, and kernels need not show
it. Of quantised types the scales are looked at, which are all that can be no number. Layouts: llama_kv_cache's
state_write, and aim-kv-cache.cpp's and aim-held-rows.cpp's around it. A state is given here after llama.cpp has taken
it, so its lengths are right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

_F32, _F16, _BF16 = 0x7F80_0000, 0x7C00, 0x7F80  # bits of an exponent: all ones in NaN and infinity alone
_SCALES = {"Q4_0": 1, "Q5_0": 1, "Q8_0": 1, "Q4_1": 2, "Q5_1": 2}  # f16 at the beginning of each block
_SEQUENCE_HEAD, _EXT = 8, 12  # magic and sequence before a state of one; llama_kv_cell_ext
_HAS_ROWS, _STAGES = 1 << 31, (1 << 29) - 1  # bits of a staged state's head
_AT_ONCE = 1 << 22  # numbers


@dataclass
class _Reader:
    data: memoryview
    at: int = 0

    def take(self, form: str) -> tuple[Any, ...]:
        """Plain numbers, as `struct` names them."""
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def block(self, n_bytes: int) -> memoryview:
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]


def plain_is_finite(state: bytearray, *, has_ext: bool) -> bool:
    """Of a context without stages or recurrent layers. has_ext: its cells have positions of two dimensions (M-RoPE)."""
    reader = _Reader(memoryview(state), _SEQUENCE_HEAD)
    return all(_is_finite(kind, block) for kind, block in _until_end(reader, has_ext))


def staged_is_finite(state: bytearray, *, has_ext: bool) -> bool:
    """Of a context that prunes. has_ext: as above."""
    reader = _Reader(memoryview(state))
    reader.block(*reader.take("I"))  # the architecture's name
    (head,) = reader.take("I")
    for _ in range(head & _STAGES):
        reader.take("i")  # its first layer
        if not all(_is_finite(kind, block) for kind, block in _cache(reader, has_ext)):
            return False
    if not head & _HAS_ROWS:
        return True
    n_rows, row_bytes = reader.take("IQ")
    return _is_finite(GGMLQuantizationType.F32, reader.block(n_rows * row_bytes))


def _until_end(reader: _Reader, has_ext: bool) -> Iterator[tuple[GGMLQuantizationType, memoryview]]:
    """Models with windows have two caches."""
    while reader.at < len(reader.data):
        yield from _cache(reader, has_ext)


def _cache(reader: _Reader, has_ext: bool) -> Iterator[tuple[GGMLQuantizationType, memoryview]]:
    """The types and bytes of all layers' keys and values of one llama_kv_cache."""
    (n_streams,) = reader.take("I")
    for _ in range(n_streams):
        (n_cells,) = reader.take("I")
        if not n_cells:
            continue
        for _ in range(n_cells):
            _, n_sequences = reader.take("iI")
            reader.block((_EXT if has_ext else 0) + 4 * n_sequences)
        is_transposed, n_layers = reader.take("II")
        for _ in range(n_layers):
            kind, row = reader.take("iQ")
            yield GGMLQuantizationType(kind), reader.block(n_cells * row)
        for _ in range(n_layers):
            if is_transposed:
                kind, size, n_rows = reader.take("iII")
                yield GGMLQuantizationType(kind), reader.block(n_cells * size * n_rows)
            else:
                kind, row = reader.take("iQ")
                yield GGMLQuantizationType(kind), reader.block(n_cells * row)


def _is_finite(kind: GGMLQuantizationType, block: memoryview) -> bool:
    numbers, exponent = _numbers(kind, block)
    parts = range(0, len(numbers), _AT_ONCE)
    return not any(((numbers[at : at + _AT_ONCE] & exponent) == exponent).any() for at in parts)


def _numbers(kind: GGMLQuantizationType, block: memoryview) -> tuple[NDArray[Any], int]:
    """The numbers of a block as their bits, and the bits of an exponent that is all ones."""
    if kind == GGMLQuantizationType.F32:
        return np.frombuffer(block, np.uint32), _F32
    bits = np.frombuffer(block, np.uint16)
    if kind == GGMLQuantizationType.BF16:
        return bits, _BF16
    if kind == GGMLQuantizationType.F16:
        return bits, _F16
    _, n_bytes = GGML_QUANT_SIZES[kind]
    return np.ascontiguousarray(bits.reshape(-1, n_bytes // 2)[:, : _SCALES[kind.name]]).ravel(), _F16
