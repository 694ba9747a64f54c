"""A GGUF file from a plan, tensor by tensor and a few rows at a time.

The gguf package writes everything up to the weights; they are appended here, because its own tensor writing wants
whole tensors. Memory: a chunk of rows as float32 and its quantised form.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import numpy.typing as npt

from .errors import ConvertError
from .plan import Planned

CHUNK_VALUES = 1 << 22  # 16 MB as float32
Report = Callable[[str, int], None]  # tensor name, bytes just written


@dataclass(frozen=True)
class Written:
    """One finished file. `types` counts tensors per type."""

    path: Path
    n_bytes: int
    sha256: str
    tensors: int
    types: dict[str, int]


def write_gguf(
    path: Path, arch: str, metadata: Callable[[gguf.GGUFWriter], None], plan: list[Planned], report: Report
) -> Written:
    """Write `plan` with the keys that `metadata` adds. Raises OSError when the disk is full."""
    write_head(path, arch, metadata, plan)
    digest = hashlib.sha256(path.read_bytes())
    with open(path, "ab") as file:
        for data, name in blocks(file, plan):
            file.write(data)
            digest.update(data)
            report(name, len(data))
        file.flush()
        os.fsync(file.fileno())
    types = Counter(str(p.type.name) for p in plan)
    return Written(path, path.stat().st_size, digest.hexdigest(), len(plan), dict(sorted(types.items())))


def write_head(path: Path, arch: str, metadata: Callable[[gguf.GGUFWriter], None], plan: list[Planned]) -> None:
    """Header, keys and tensor infos."""
    writer = gguf.GGUFWriter(path, arch)
    try:
        metadata(writer)
        for p in plan:
            writer.add_tensor_info(p.name, p.source.shape, np.dtype(np.float32), p.n_bytes, raw_dtype=p.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def blocks(file: BinaryIO, plan: list[Planned]) -> Iterator[tuple[bytes | memoryview, str]]:
    """The weights in file order, with the padding that aligns each tensor."""
    yield padding(file.tell()), ""
    for p in plan:
        for chunk in chunks(p):
            yield chunk, p.name
        yield padding(p.n_bytes), p.name


def padding(n: int) -> bytes:
    return bytes(-n % gguf.GGUF_DEFAULT_ALIGNMENT)


def chunks(p: Planned) -> Iterator[memoryview]:
    """The tensor's bytes in its type. Chunks are whole row groups, so that a row permutation stays inside one."""
    n_rows, row = p.source.shape[0], prod(p.source.shape[1:])
    step = max(p.row_group, CHUNK_VALUES // row // p.row_group * p.row_group)
    for begin in range(0, n_rows, step):
        values = p.source.read_rows(begin, min(begin + step, n_rows))
        if p.transform is not None:
            values = p.transform(values)
        yield np.ascontiguousarray(encode(values, p)).data.cast("B")


def encode(values: npt.NDArray[np.float32], p: Planned) -> npt.NDArray[Any]:
    """`values` in the planned type. F16 ends at 65504: a weight beyond it would become infinite in silence."""
    with np.errstate(over="ignore"):
        data: npt.NDArray[Any] = gguf.quants.quantize(values, p.type)
    if p.type == gguf.GGMLQuantizationType.F16 and not np.isfinite(data).all():
        raise ConvertError(f"{p.source.name} has values that f16 cannot hold (beyond 65504, or NaN); use bf16 or f32")
    return data


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
