"""A checkpoint folder on disk: its JSON files, and its tensors by name, read a few rows at a time.

Knows the safetensors and the PyTorch container, sharded or not. Headers are read at once, weights only when
asked for and with plain reads: a mapped file would count every page ever touched as our memory.
What the names mean is names.py's business.
"""

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aim_local.bounded import bounded_bytes
from aim_local.store.plain_json import parsed

from .errors import ConvertError, some
from .json_kinds import check_kinds, without_nulls
from .refusals import check_folder, check_names, check_quantised
from .safetensors_header import read_safetensors_header

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
DTYPES: dict[str, npt.DTypeLike] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
# keys of config.json that change when the same model is saved anew
SAVING = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
_HALF = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # of a pair of surrogates, as JSON writes them
MAX_JSON = 64 << 20  # the index of weights with the most shards has 10 MB, the longest vocabulary 35 MB


@dataclass(frozen=True)
class TensorRef:
    """One tensor of a checkpoint, not read yet. `shape` is PyTorch's order, rows first."""

    name: str
    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def read_rows(self, begin: int, end: int) -> npt.NDArray[np.float32]:
        """Rows `begin:end` as float32 [end - begin, *shape[1:]]."""
        dtype = np.dtype(DTYPES[self.dtype]).newbyteorder("<")
        row = prod(self.shape[1:])
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset + begin * row * dtype.itemsize)
            raw = np.fromfile(file, dtype=dtype, count=(end - begin) * row)
        if raw.size != (end - begin) * row:
            raise ConvertError(f"{self.path.name} ended inside {self.name}; download it again")
        raw = raw.reshape(end - begin, *self.shape[1:])
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a config.json and weights. Made by `open_checkpoint`."""

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorRef]

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in file `name`, where null is as if the key were not there; empty without that file."""
        path = self.folder / name
        return without_nulls(read_json(path)) if path.is_file() else {}

    @property
    def origin(self) -> str:
        """A mark of the model that config.json describes, for both files made of it: 32 hex digits."""
        content = json.dumps(described(self.config), sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()[:32]

    def text(self, name: str) -> str | None:
        path = self.folder / name
        try:
            return bounded_bytes(path, MAX_JSON).decode() if path.is_file() else None
        except UnicodeDecodeError as e:
            raise ConvertError(f"{path} is not text in UTF-8 ({e}); download it again") from e
        except ValueError as e:
            raise ConvertError(f"{path} cannot be read ({e}); download it again") from e


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json and all weight headers of `folder`.

    Raises ConvertError with one line for whatever is not a complete checkpoint.
    """
    check_folder(folder)
    config = read_json(folder / "config.json")
    check_quantised(folder, config)
    tensors = read_headers(folder)
    check_names(folder, tensors)
    return Checkpoint(folder, config, tensors)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, whose values are of the kinds that the file's name promises."""
    try:
        text = bounded_bytes(path, MAX_JSON).decode()
        value = parsed(text, infinite=True)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # a half without the other is no character
    except (OSError, ValueError) as e:
        raise ConvertError(f"{path} cannot be read as JSON ({e}); download it again") from e
    if not isinstance(value, dict):
        raise ConvertError(f"{path} holds a JSON {type(value).__name__} where an object is expected; download it again")
    check_kinds(value, path.name)
    return value


def described(value: Any) -> Any:
    """Of a config, what describes the model: not who saved it, from where and for which use."""
    if isinstance(value, dict):
        return {key: described(inner) for key, inner in value.items() if key not in SAVING}
    return [described(inner) for inner in value] if isinstance(value, list) else value


def section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`; empty where there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def weight_files(folder: Path) -> list[Path]:
    """The weight files of `folder`, every shard the index names; safetensors before pickles."""
    for index, single in zip(INDEX_FILES, SINGLE_FILES, strict=True):
        check_links(folder, (index, single))
        if (folder / index).is_file():
            names = sorted(set((read_json(folder / index).get("weight_map") or {}).values()))
            check_links(folder, names)
            missing = [n for n in names if not (folder / n).is_file()]
            if missing or not names:
                raise ConvertError(
                    f"{folder} lacks {len(missing)} of {len(names)} weight shards ({some(missing)}); download them"
                )
            return [folder / n for n in names]
        if (folder / single).is_file():
            return [folder / single]
    raise ConvertError(
        f"{folder} has a config.json but no weights; expected one of {', '.join(SINGLE_FILES + INDEX_FILES)}"
    )


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Raises ConvertError for a symbolic link that leads nowhere, as a moved or emptied hub cache leaves them."""
    for path in (folder / name for name in names):
        if path.is_symlink() and not path.exists():
            raise ConvertError(
                f"{path} is a broken link: it points to {path.readlink()}, which is not there; download the file again"
            )


def read_headers(folder: Path) -> dict[str, TensorRef]:
    """Every tensor of the folder's weight files by its name in the file."""
    tensors: dict[str, TensorRef] = {}
    for path in weight_files(folder):
        read = safetensors_refs if path.suffix == ".safetensors" else torch_refs
        for ref in read(path):
            if ref.name in tensors:
                raise ConvertError(
                    f"{ref.name} is in both {tensors[ref.name].path.name} and {path.name}; keep one set of shards"
                )
            tensors[ref.name] = ref
    check_index(folder, tensors)
    return tensors


def check_index(folder: Path, tensors: Mapping[str, TensorRef]) -> None:
    """Raises ConvertError for tensors that the index promises and no shard has: the files are not of one save."""
    files = {ref.path.name for ref in tensors.values()}
    for name in INDEX_FILES:
        listed = (read_json(folder / name).get("weight_map") or {}) if (folder / name).is_file() else {}
        lost = sorted(tensor for tensor, file in listed.items() if file in files and tensor not in tensors)
        if lost:
            raise ConvertError(
                f"{folder / name} lists {len(lost)} tensors that the shards do not have ({some(lost)}); "
                "download the index and the shards again"
            )


def safetensors_refs(path: Path) -> list[TensorRef]:
    """Of a safetensors file."""
    return [TensorRef(t.name, path, t.begin, t.dtype, t.shape) for t in read_safetensors_header(path)]


def torch_refs(path: Path) -> list[TensorRef]:
    """A pytorch_model.bin: torch reads the pickle with fake tensors, which know their offset in the file."""
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError as e:
        raise ConvertError(
            f"{path.name} is a PyTorch file and needs torch; run in the source folder: pip install -e '.[convert]'"
        ) from e
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    try:
        with FakeTensorMode():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # unpickling fails in many ways, all of them mean the same to the user
        raise ConvertError(
            f"{path} cannot be read as a PyTorch checkpoint ({type(e).__name__}); download it again"
        ) from e
    if not zipfile.is_zipfile(path):
        raise ConvertError(
            f"{path} is of the form that torch wrote before its version 1.6; load it with torch and save it anew"
        )
    refs, records = [], record_sizes(path)
    for name, tensor in state.items():
        if not tensor.is_contiguous():
            raise ConvertError(f"{name} in {path.name} is not stored contiguously; re-save it as safetensors")
        begin, inside = tensor.untyped_storage()._checkpoint_offset, tensor.storage_offset() * tensor.element_size()
        if inside + tensor.numel() * tensor.element_size() > records.get(begin, 0):
            raise ConvertError(f"{path}: {name} is longer than the data it is made of; download it again")
        offset, dtype = begin + inside, names.get(tensor.dtype, str(tensor.dtype))
        refs.append(TensorRef(name, path, offset, dtype, tuple(tensor.shape)))
    return refs


def record_sizes(path: Path) -> dict[int, int]:
    """Bytes of each part of a zip by where its data begin: behind its header and the name and extra field in that."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        sizes = {}
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            n_name, n_extra = struct.unpack("<HH", file.read(4))
            sizes[info.header_offset + 30 + n_name + n_extra] = info.file_size
    return sizes
