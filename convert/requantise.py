"""A file that was just converted, in a type that the converter does not write: quantised in its own place.

quantize_text.py and quantize_vision.py do it; here is from which type, and the way from their progress to ours.
"""

import os
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

from aim_local.store import MMPROJ

from .checkpoint import TensorRef
from .errors import ConvertError
from .progress import Meter
from .quantize_text import run_worker
from .quantize_vision import quantize_vision
from .quantized import open_gguf, types_of
from .writer import Written, file_sha256

SOURCE_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def through_type(tensors: Mapping[str, TensorRef]) -> str:
    """The type to write before quantising: the checkpoint's own, so that nothing is rounded twice."""
    count: Counter[str] = Counter()
    for ref in tensors.values():
        count[ref.dtype] += prod(ref.shape)
    most = max(count, key=lambda name: count[name], default="nothing")
    if most not in SOURCE_TYPES:
        raise ConvertError(
            f"the checkpoint's weights are {most}; allowed are {', '.join(SOURCE_TYPES)}: convert the unquantised one"
        )
    return SOURCE_TYPES[most]


def requantised(path: Path, kind: str, n_bytes: int, meter: Meter) -> Written:
    """The GGUF `path` in type `kind`. `n_bytes`: of it, which the meter counts once more."""
    through = path.with_name(f"{path.stem}.through.gguf")
    path.rename(through)
    done = 0

    def progress(tensors: int, total: int, name: str) -> None:
        nonlocal done
        meter.add(name, n_bytes * tensors // total - done)
        done = n_bytes * tensors // total

    if path.name == MMPROJ:
        quantize_vision(through, path, kind, progress)
    else:
        run_worker(through, path, kind, os.cpu_count() or 1, progress)
    through.unlink()
    meter.add(path.name, n_bytes - done)
    return written(path)


def written(path: Path) -> Written:
    """What a finished file is."""
    types = types_of(open_gguf(path, "a converted file"))
    return Written(path, path.stat().st_size, file_sha256(path), sum(types.values()), types)
