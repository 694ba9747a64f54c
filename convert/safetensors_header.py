"""The header of a safetensors file, held against the format: nothing of the file is without an owner, or has two.

Format: u64 header length, JSON header, data. https://github.com/huggingface/safetensors#format
Tensors follow each other without holes; the last one ends where the file ends. A file that says otherwise is damaged,
and whoever reads it by its offsets gets numbers of another tensor.
"""

from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from aim_local.store.plain_json import parsed

from .errors import ConvertError

MAX_HEADER = 100_000_000  # the safetensors library refuses longer headers too
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
}


class Stored(NamedTuple):
    """A tensor of the file; its bytes are counted from the file's begin."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors_header(path: Path) -> list[Stored]:
    """Every tensor of the file, in the order of its bytes. Raises ConvertError with one line for a damaged file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        if not 0 < n_header <= min(MAX_HEADER, size - 8):
            raise ConvertError(
                f"{path} is not a safetensors file (a Git LFS pointer, or cut short?); download it again"
            )
        try:
            header = parsed(file.read(n_header), unique=True)
        except ValueError as e:
            raise broken(path, str(e)) from e
    infos = tensor_infos(header)
    if infos is None:
        raise broken(path, "no table of tensors")
    data = 8 + n_header
    found = [
        Stored(name, info["dtype"], tuple(info["shape"]), *(data + offset for offset in info["data_offsets"]))
        for name, info in infos.items()
    ]
    found.sort(key=lambda tensor: (tensor.begin, tensor.end))
    check_cover(path, found, data, size)
    return found


def check_cover(path: Path, found: list[Stored], data: int, size: int) -> None:
    """Raises ConvertError where the tensors do not cover the file's bytes from `data` to `size`, each once."""
    front = Stored("the header", "", (), 0, data)
    end = max((tensor.end for tensor in found), default=data)
    if end > size:
        raise ConvertError(f"{path} is cut short ({size} of {end} bytes); download it again")
    for before, tensor in pairwise((front, *found)):
        if tensor.begin < before.end:
            raise broken(path, f"{before.name} and {tensor.name} share bytes")
        if tensor.begin > before.end:
            raise broken(path, f"{tensor.begin - before.end} bytes in front of {tensor.name} are no tensor's")
    if end < size:
        raise ConvertError(
            f"{path} is longer than its tensors ({size - end} bytes behind the last one); download it again"
        )


def broken(path: Path, what: str) -> ConvertError:
    return ConvertError(f"{path} has a broken safetensors header ({what}); download it again")


def tensor_infos(header: Any) -> dict[str, Any] | None:
    """The header's tensors, None where something else is in it."""
    if not isinstance(header, dict):
        return None
    infos = {name: info for name, info in header.items() if name != "__metadata__"}
    return infos if all(map(is_tensor_info, infos.values())) else None


def is_tensor_info(info: Any) -> bool:
    if not isinstance(info, dict) or not isinstance(info.get("dtype"), str):
        return False
    shape, offsets = info.get("shape"), info.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return False
    whole = all(type(n) is int and n >= 0 for n in (*shape, *offsets))
    bits = BITS.get(info["dtype"])
    return whole and offsets[0] <= offsets[1] and (bits is None or (offsets[1] - offsets[0]) * 8 == prod(shape) * bits)
