"""Random bytes that are valid weights, written as a GGUF file of a planned layout. Memory: one block of noise a type.

Knows how each type stores its scale. Which tensors there are comes from the converter's plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

DEVIATION = 0.02  # of the weights
BLOCKS = 1 << 18  # blocks of noise of a type; repeated, because the values do not matter
STEP = 7919  # blocks between the beginnings of two tensors: no two layers are alike, as equal ones would resonate

# quantised types: least and largest value that random bits give, in units of the scale
_STEPS = {"Q4_0": (-8, 7), "Q5_0": (-16, 15), "Q8_0": (-128, 127), "Q4_1": (0, 15), "Q5_1": (0, 31)}


def write_gguf(
    path: Path,
    arch: str,
    keys: Callable[[Any], None],
    plan: list[Any],
    report: Callable[[int], None] | None = None,
) -> None:
    """Writes `plan` with random weights, norms at one. The same plan makes the same file. Raises OSError."""
    from aim_local.convert.writer import padding, write_head

    write_head(path, arch, keys, plan)
    noises: dict[Any, memoryview] = {}
    with open(path, "ab") as file:
        file.write(padding(file.tell()))
        for i, tensor in enumerate(plan):
            for piece in pieces(tensor, i, noises):
                file.write(piece)
                if report:
                    report(len(piece))
            file.write(padding(tensor.n_bytes))


def pieces(tensor: Any, number: int, noises: dict[Any, memoryview]) -> Iterator[memoryview | bytes]:
    """The bytes of one tensor. `number`: its place in the file."""
    if len(tensor.source.shape) == 1:
        yield vector(tensor.name, tensor.source.shape[0], number).tobytes()
        return
    if tensor.type not in noises:
        noises[tensor.type] = memoryview(noise(tensor.type).tobytes())
    data, (_, size) = noises[tensor.type], GGML_QUANT_SIZES[tensor.type]
    at, left = number * STEP * size % len(data), tensor.n_bytes
    while left:
        piece = data[at : at + left]
        yield piece
        at, left = 0, left - len(piece)


def vector(name: str, n: int, number: int) -> NDArray[np.float32]:
    """A norm's weights or a bias."""
    is_norm = name.endswith(".weight") and ("norm" in name or ".ln" in name)
    if is_norm:
        return np.ones(n, np.float32)
    return (np.random.default_rng(number).standard_normal(n) * DEVIATION / 2).astype(np.float32)


def noise(kind: GGMLQuantizationType) -> NDArray[Any]:
    """BLOCKS blocks of `kind`: normal numbers, or random bits under a scale that gives them the same deviation."""
    rng = np.random.default_rng(0)
    if kind.name not in _STEPS:
        values = (rng.standard_normal(BLOCKS, np.float32) * DEVIATION).astype(np.float32)
        if kind == GGMLQuantizationType.BF16:
            return (values.view(np.uint32) >> 16).astype(np.uint16)
        return values.astype(np.float16) if kind == GGMLQuantizationType.F16 else values
    low, high = _STEPS[kind.name]
    scale = DEVIATION * 12**0.5 / (high - low + 1)  # the deviation of equal steps is their range / sqrt(12)
    data = rng.integers(0, 256, (BLOCKS, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    data[:, :2] = _half(scale)  # the block's scale comes first
    if low == 0:
        data[:, 2:4] = _half(-scale * high / 2)  # then its least value
    return data


def _half(value: float) -> NDArray[np.uint8]:
    return np.array([value], np.float16).view(np.uint8)
