"""GGUF files with one thing bent, made with the fuzzer's reader and writer of the format (fuzz/targets/gguf.py)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from fuzz.targets.gguf import ARRAY, SCALARS, TEXT, Entry, File, Tensor, parse, written

FOLDER = Path(__file__).parents[1] / "aim_local" / "data" / "model"
KINDS = {"uint8": 0, "int8": 1, "uint32": 4, "int32": 5, "float32": 6, "bool": 7, "uint64": 10}
F32, F16, Q8_0, I8, I32 = 0, 1, 8, 24, 26


@cache
def whole(name: str) -> File:
    """The bundled "model" or "mmproj"."""
    return parse((FOLDER / f"{name}.gguf").read_bytes())


def number(kind: str, value: float) -> dict[str, int | bytes]:
    return {"kind": KINDS[kind], "value": struct.pack(f"<{SCALARS[KINDS[kind]]}", value)}


def text(value: str | bytes) -> dict[str, int | bytes]:
    data = value.encode() if isinstance(value, str) else value
    return {"kind": TEXT, "value": struct.pack("<Q", len(data)) + data}


def array(kind: str, *values: float) -> dict[str, int | bytes]:
    packed = struct.pack(f"<{len(values)}{SCALARS[KINDS[kind]]}", *values)
    return {"kind": ARRAY, "value": struct.pack("<IQ", KINDS[kind], len(values)) + packed}


def texts(*values: str) -> dict[str, int | bytes]:
    return {"kind": ARRAY, "value": struct.pack("<IQ", TEXT, len(values)) + b"".join(text(v)["value"] for v in values)}


def with_key(file: File, key: str, value: dict[str, int | bytes] | None) -> File:
    """The key's value replaced, or put in; None: without the key."""
    kept = [e for e in file.entries if e.key != key.encode()]
    made = [] if value is None else [Entry(key.encode(), **value)]
    return replace(file, entries=tuple(kept + made))


def of_architecture(file: File, name: str) -> File:
    """The bundled language model as one of another architecture, whose keys are named after it."""
    entries = [replace(e, key=e.key.replace(b"qwen2.", f"{name}.".encode())) for e in file.entries]
    return with_key(replace(file, entries=tuple(entries)), "general.architecture", text(name))


def with_tensor(file: File, name: str, bend: Callable[[Tensor], Tensor | None]) -> File:
    assert any(t.name == name.encode() for t in file.tensors), name
    bent = [bend(t) if t.name == name.encode() else t for t in file.tensors]
    return replace(file, tensors=tuple(t for t in bent if t is not None))


def with_tensors(file: File, tensors: tuple[Tensor, ...]) -> File:
    return replace(file, tensors=tensors)


def as_numbers(shape: tuple[int, ...], value: float = 0.5) -> Callable[[Tensor], Tensor]:
    """Float32 of that shape."""

    def bend(tensor: Tensor) -> Tensor:
        n = 1
        for side in shape:
            n *= side
        return replace(tensor, shape=shape, type=F32, data=struct.pack("<f", value) * n)

    return bend


def save(file: File, path: Path) -> Path:
    path.write_bytes(written(file))
    return path
