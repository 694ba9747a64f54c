"""What quantising has in common, whichever tower it is done to: how it reports, what it returns, how a GGUF is read."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf

from aim_local.errors import ModelError
from aim_local.store.gguf_header import read_whole

from .errors import ConvertError
from .types import UNQUANTIZED

Progress = Callable[[int, int, str], None]  # tensors done, tensors in all, tensor name


@dataclass(frozen=True)
class QuantizeResult:
    """What was written. `path` is a file or, for a folder, the new folder; `types` counts tensors per type."""

    path: Path
    model: Path
    type: str
    n_bytes_before: int
    n_bytes: int
    types: dict[str, int]
    seconds: float


def open_gguf(path: Path, what: str) -> gguf.GGUFReader:
    """The GGUF `path`. Raises ConvertError, which tells to name `what`."""
    try:
        read_whole(path)  # the package's reader takes what breaks the format for what it looks like
        return gguf.GGUFReader(path)
    except ModelError as e:
        why = str(e).removeprefix(f"{path}: ")
        raise ConvertError(f"{path} is not a readable GGUF ({why}); name {what}") from e
    except (ValueError, IndexError, KeyError, OverflowError) as e:
        raise ConvertError(f"{path} is not a readable GGUF ({e}); name {what}") from e


def architecture_of(reader: gguf.GGUFReader) -> str:
    """general.architecture; empty where the file has none."""
    field = reader.fields.get(gguf.Keys.General.ARCHITECTURE)
    return str(field.contents()) if field else ""


def types_of(reader: gguf.GGUFReader) -> dict[str, int]:
    """Tensors per type."""
    return dict(sorted(Counter(t.tensor_type.name for t in reader.tensors).items()))


def check_unquantized(path: Path, reader: gguf.GGUFReader, option: str) -> None:
    """Raises ConvertError where a tensor is quantised. `option`: what makes an f16 file of this tower."""
    quantised = sorted(set(types_of(reader)) - {t.name for t in UNQUANTIZED})
    if quantised:
        raise ConvertError(
            f"{path} is quantised already ({', '.join(quantised)}); quantise from an f16 file: convert with {option}"
        )
