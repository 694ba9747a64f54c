"""What benchmarks of vision towers share: a tower opened at a precision, and copies of a mmproj with other weights.

Knows no family and no measure. The precisions are the library's own, LoadConfig(vision_precision=...); a library
without that option has "exact" alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from aim_local import LoadConfig, config
from aim_local.convert.types import FILE_TYPES, vision_type
from aim_local.errors import UsageError
from aim_local.models.registry import open_tower
from aim_local.models.text import TextModel
from aim_local.models.tiles import TileTower

EXACT, OPTION = "exact", "vision_precision"

Weights = dict[str, NDArray[np.float32]]


def precisions() -> tuple[str, ...]:
    """Every precision of this library but "auto", which is one of the others; "exact" first."""
    found = getattr(config, "VISION_PRECISIONS", (EXACT,))
    return (EXACT, *(name for name in found if name not in (EXACT, "auto")))


def load_config(precision: str, n_threads: int | None = None, **others: Any) -> LoadConfig:
    """Raises UsageError for a precision that this library does not have. others: LoadConfig's."""
    options: dict[str, Any] = {"n_threads": n_threads, **others}
    if OPTION in {field.name for field in fields(LoadConfig)}:
        options[OPTION] = precision
    elif precision != EXACT:
        raise UsageError(f"{OPTION} {precision!r}: this library has no such option and computes {EXACT!r} alone")
    return LoadConfig(**options)


def reference_config(n_threads: int | None = None) -> LoadConfig:
    """For f32 files: all of the tower in float32. ggml's flash attention rounds keys and values to 16 bits."""
    return load_config(EXACT, n_threads, flash_attn=False)


@contextmanager
def opened(mmproj: Path, text: Path, options: LoadConfig) -> Iterator[TileTower]:
    """A tower with its weights, which runs tile by tile. Raises UsageError for one that does not."""
    model = TextModel(text, options)
    try:
        tower = open_tower(mmproj, model)
        try:
            if not isinstance(tower, TileTower):
                raise UsageError(f"{mmproj}: its tower takes whole pictures; name one that runs tile by tile")
            yield tower
        finally:
            tower.close()
    finally:
        model.close()


def copy_mmproj(
    source: Path, target: Path, type_name: str, change: Callable[[Weights], Weights] = lambda weights: weights
) -> None:
    """The same tower with its matrices in another type, as the converter would choose it, and its weights changed."""
    reader = gguf.GGUFReader(source)
    kind = gguf.GGMLQuantizationType[type_name.upper()]
    writer = gguf.GGUFWriter(target, "clip")
    for name, field in reader.fields.items():
        if name in ("general.architecture", "general.file_type") or name.startswith("GGUF."):
            continue
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(FILE_TYPES[kind])
    weights = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    for name, values in change(weights).items():
        found = vision_type(name, values.shape, kind)
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), found), raw_dtype=found)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
