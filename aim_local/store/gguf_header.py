"""The head of a GGUF file: metadata and tensor list, without its weights and without its vocabulary.

gguf.GGUFReader makes an array of every vocabulary entry: 14 s for 150,000 tokens, where this takes 0.1 s. Long arrays
are skipped, only their length is kept. Knows the file format, and refuses what breaks it; not what the keys mean.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ..errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# a damaged count must not become minutes of reading; the largest models have hundreds of keys, thousands of tensors
# and a million of texts (tokens, merges)
MAX_KEYS, MAX_TENSORS, MAX_TEXTS = 1 << 16, 1 << 17, 1 << 23
MAX_KEPT = 1024  # longer arrays, and arrays of strings, are skipped
MAX_NAME, MAX_DIMS = 63, 4  # bytes of a tensor's name, dimensions: GGML_MAX_NAME and GGML_MAX_DIMS of ggml.h
# ggml computes with weights at multiples of 32 bytes alone, and they are used where they lie in the file
ALIGNMENT, LEAST_ALIGNMENT, MOST_ALIGNMENT = 32, 32, 1 << 20
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "text", "array")
KINDS = (*_KINDS, "uint64", "int64", "float64")  # by their numbers in the file


@dataclass(frozen=True)
class TensorInfo:
    """shape: in ggml's order, row length first; type: the ggml type's number; offset: bytes from the data section."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class ArrayInfo:
    """An array that was skipped."""

    length: int


@dataclass(frozen=True)
class GgufHeader:
    """metadata: key -> number, bool, str, tuple of numbers or ArrayInfo; data_offset: bytes before the weights.

    kinds: key -> how the file keeps it, one of KINDS, or "array of" one of them. places: key -> where its value begins
    and ends in the file.
    """

    path: Path
    version: int
    metadata: dict[str, Any] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    data_offset: int
    n_bytes: int
    kinds: dict[str, str] = field(default_factory=dict, repr=False)
    places: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def n_params(self) -> int:
        return sum(prod(t.shape) for t in self.tensors)

    @property
    def file_type(self) -> str:
        """What general.file_type names, for example "Q4_K_M"; empty where the file does not say."""
        import gguf

        try:
            name = str(gguf.LlamaFileType(int(self.metadata["general.file_type"])).name)
        except (KeyError, ValueError, TypeError, OverflowError):
            return ""
        return name.removeprefix("MOSTLY_").removeprefix("ALL_")

    def types(self) -> dict[str, int]:
        """Tensors per weight type, the type with the most bytes first."""
        import gguf

        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            name = type_name(tensor.type)
            counts[name] += 1
            block, size = gguf.GGML_QUANT_SIZES.get(tensor.type, (1, 1))
            sizes[name] += prod(tensor.shape) // block * size
        return {name: counts[name] for name, _ in sizes.most_common()}

    def missing_bytes(self) -> int:
        """How many bytes of weights the file lacks; 0 for a whole file."""
        import gguf

        ends = [self.data_offset]
        for tensor in self.tensors:
            block, size = gguf.GGML_QUANT_SIZES.get(tensor.type, (1, 0))
            ends.append(self.data_offset + tensor.offset + prod(tensor.shape) // block * size)
        return max(0, max(ends) - self.n_bytes)


def type_name(number: int) -> str:
    import gguf

    try:
        return str(gguf.GGMLQuantizationType(number).name)
    except ValueError:
        return f"type {number}"


def read_header(path: str | Path) -> GgufHeader:
    """The head of the GGUF at `path`. Raises ModelError for whatever is no readable GGUF."""
    path = Path(path)
    try:
        n_bytes = path.stat().st_size
        if n_bytes < 24:
            raise ModelError(f"{path}: is no GGUF file ({n_bytes} bytes); download or convert it again")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data, n_bytes)
    except FileNotFoundError as e:
        raise ModelError(f"{path}: no such file; check the name, `aim-local models` lists what is there") from e
    except IsADirectoryError as e:
        raise ModelError(f"{path}: is a folder, not a GGUF file; name the file inside it") from e
    except (OSError, ValueError) as e:
        raise ModelError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or e}); check its permissions") from e


def head_sha256(header: GgufHeader) -> str:
    """sha256 (hex) of the file from its beginning to its weights, and of its size. Raises OSError."""
    found = hashlib.sha256(str(header.n_bytes).encode())
    with header.path.open("rb") as file:
        found.update(file.read(header.data_offset))
    return found.hexdigest()


def read_architecture(path: Path) -> str:
    """general.architecture alone, without the rest of the head; "" for whatever is no readable GGUF."""
    try:
        if not path.is_file():  # a pipe would wait for a writer
            return ""
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                return ""
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(data).architecture()
    except (OSError, ValueError, struct.error, KeyError, IndexError, OverflowError):
        return ""


def read_whole(path: str | Path) -> GgufHeader:
    """The head of a GGUF file that is not cut short. Raises ModelError."""
    header = read_header(path)
    missing = header.missing_bytes()
    if missing:
        raise ModelError(f"{path}: is truncated, {missing} bytes of weights are missing; download or convert it again")
    return header


def array_sha256(path: str | Path, key: str) -> str:
    """sha256 (hex) of the bytes of an array in the head, its length among them; "" where there is no such key.

    For arrays that `read_header` skips, such as the vocabulary. Raises ModelError as `read_header` does.
    """
    found = _value_bytes(read_header(path), key)
    return hashlib.sha256(found).hexdigest() if found else ""


def read_texts(header: GgufHeader, key: str) -> list[bytes]:
    """The texts of an array in the head, as the file has them; empty where the key is missing or no such array.

    For arrays that `read_header` skips: a vocabulary takes some tenths of a second. Raises ModelError, OSError.
    """
    if header.kinds.get(key) != "array of text":
        return []
    data, found = _value_bytes(header, key), list[bytes]()
    unpack, at = struct.Struct("<Q").unpack_from, 12  # kind of the items, length
    while at < len(data):
        (length,) = unpack(data, at)
        at += 8 + length
        found.append(data[at - length : at])
    return found


def read_numbers(header: GgufHeader, key: str) -> tuple[float, ...]:
    """The numbers of an array in the head, as `read_texts` those of a vocabulary."""
    whole, _, kind = header.kinds.get(key, "").partition("array of ")
    if whole or kind not in KINDS or KINDS.index(kind) not in SCALARS:
        return ()
    data, code = _value_bytes(header, key), SCALARS[KINDS.index(kind)]
    (length,) = struct.unpack_from("<Q", data, 4)
    return struct.unpack_from(f"<{length}{code}", data, 12)


def _value_bytes(header: GgufHeader, key: str) -> bytes:
    """What stands behind a key and the kind of its value, nothing where there is no such key."""
    begin, end = header.places.get(key, (0, 0))
    with header.path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _parse(path: Path, data: mmap.mmap, n_bytes: int) -> GgufHeader:
    if data[:4] != MAGIC:
        raise ModelError(f"{path}: is no GGUF file (it starts with {data[:4]!r}); name a .gguf or convert a checkpoint")
    cursor = _Cursor(data)
    cursor.at = 4
    try:
        version = cursor.scalar("I")
        if version not in VERSIONS:
            raise ModelError(f"{path}: is GGUF version {version}; versions 2 and 3 are read: convert the model again")
        n_tensors = cursor.count("tensors", MAX_TENSORS)
        metadata, kinds, places = cursor.keys(cursor.count("keys", MAX_KEYS))
        tensors = cursor.tensors(n_tensors)
        alignment = _alignment(metadata, kinds)
        _check_layout(tensors, alignment)
    except _DamagedError as e:
        raise ModelError(f"{path}: has a damaged head: {e}; download or convert it again") from e
    except (struct.error, IndexError, OverflowError) as e:
        raise ModelError(
            f"{path}: ends or breaks inside its head ({n_bytes} bytes); download or convert it again"
        ) from e
    return GgufHeader(path, version, metadata, tensors, cursor.at + -cursor.at % alignment, n_bytes, kinds, places)


class _DamagedError(ValueError):
    """What in the head breaks the format."""


def _alignment(metadata: dict[str, Any], kinds: dict[str, str]) -> int:
    value = metadata.get("general.alignment", ALIGNMENT)
    right = isinstance(value, int) and LEAST_ALIGNMENT <= value <= MOST_ALIGNMENT and value & (value - 1) == 0
    if not right or kinds.get("general.alignment", "uint32") != "uint32":
        raise _DamagedError(
            f"general.alignment is {value!r:.40}, it has to be a power of two, {LEAST_ALIGNMENT} to {MOST_ALIGNMENT}"
        )
    return int(value)


def _check_layout(tensors: tuple[TensorInfo, ...], alignment: int) -> None:
    """As llama.cpp wants it: tensors lie one behind the other, each at a multiple of the alignment."""
    import gguf

    end = 0
    for tensor in tensors:
        block, size = gguf.GGML_QUANT_SIZES.get(tensor.type, (0, 0))
        if not block:
            raise _DamagedError(f"the tensor {tensor.name!a} is of type {tensor.type}, which there is not")
        if tensor.shape[0] % block:
            kind = type_name(tensor.type)
            raise _DamagedError(f"the tensor {tensor.name!a} has rows of {tensor.shape[0]}, {kind} is by {block}")
        if tensor.offset != end:
            raise _DamagedError(
                f"the tensor {tensor.name!a} begins at {tensor.offset}, the one before it ends at {end}"
            )
        end += prod(tensor.shape) // block * size
        end += -end % alignment


class _Cursor:
    """Reads little-endian values from a file in memory, one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0
        self._n_texts = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def count(self, what: str, most: int) -> int:
        n: int = self.scalar("Q")
        if n > most:
            raise _DamagedError(f"it counts {n} {what}, {most} at most can be")
        return n

    def keys(self, n: int) -> tuple[dict[str, Any], dict[str, str], dict[str, tuple[int, int]]]:
        """Values, kinds and places by key."""
        metadata: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        places: dict[str, tuple[int, int]] = {}
        for _ in range(n):
            key = self.name("key", kinds)
            kind = self.scalar("I")
            kinds[key] = self.kind_name(key, kind)
            begin = self.at
            metadata[key] = self.value(kind)
            places[key] = begin, self.at
        return metadata, kinds, places

    def name(self, what: str, known: Container[str]) -> str:
        """Of a key or tensor: text, which none of the known ones is."""
        try:
            name = self._bytes().decode()
        except UnicodeDecodeError as e:
            raise _DamagedError(f"a {what} has a name that is not UTF-8") from e
        if not name or name in known:
            raise _DamagedError(f"the {what} {name!a:.80} is there twice" if name else f"a {what} has no name")
        return name

    def string(self) -> str:
        return self._bytes().decode("utf-8", errors="replace")

    def _bytes(self) -> bytes:
        length = self.scalar("Q")
        if self.at + length > len(self.data):
            raise IndexError("string beyond the end")
        self.at += length
        return self.data[self.at - length : self.at]

    def kind_name(self, key: str, kind: int) -> str:
        """Of the value that comes next, which is not read."""
        inner = struct.unpack_from("<I", self.data, self.at)[0] if kind == ARRAY else kind
        if kind >= len(KINDS) or inner >= len(KINDS) or inner == ARRAY:
            nested = "an array of arrays" if inner == ARRAY else f"of kind {max(kind, inner)}, which there is not"
            raise _DamagedError(f"{key!a:.80} is {nested}")
        return f"array of {KINDS[inner]}" if kind == ARRAY else KINDS[kind]

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        return self.array() if kind == ARRAY else self.scalar(SCALARS[kind])

    def architecture(self) -> str:
        self.at = 16  # magic, version, number of tensors
        for _ in range(self.count("keys", MAX_KEYS)):
            key, value = self.string(), self.value(self.scalar("I"))
            if key == "general.architecture":
                return str(value)
        return ""

    def array(self) -> ArrayInfo | tuple[Any, ...]:
        kind, length = self.scalar("I"), self.scalar("Q")
        if kind in SCALARS and length <= MAX_KEPT:
            return tuple(self.scalar(SCALARS[kind]) for _ in range(length))
        if kind == STRING:
            self._skip_strings(length)
        else:
            self.at += length * struct.calcsize(f"<{SCALARS[kind]}")
        if self.at > len(self.data):
            raise IndexError("array beyond the end")
        return ArrayInfo(length)

    def _skip_strings(self, length: int) -> None:
        self._n_texts += length
        if self._n_texts > MAX_TEXTS:
            raise _DamagedError(f"it counts {self._n_texts} texts, {MAX_TEXTS} at most can be")
        # the vocabulary: the one loop that is hot
        unpack, data, at = struct.Struct("<Q").unpack_from, self.data, self.at
        for _ in range(length):
            at += 8 + unpack(data, at)[0]
        self.at = at

    def tensors(self, n: int) -> tuple[TensorInfo, ...]:
        found: dict[str, TensorInfo] = {}
        for _ in range(n):
            name = self.name("tensor", found)
            found[name] = self._tensor(name)
        return tuple(found.values())

    def _tensor(self, name: str) -> TensorInfo:
        if len(name.encode()) > MAX_NAME:
            raise _DamagedError(f"the tensor {name!a:.80} has a name of more than {MAX_NAME} bytes")
        n_dims = self.scalar("I")
        if not 1 <= n_dims <= MAX_DIMS:
            raise _DamagedError(f"the tensor {name!a} has {n_dims} dimensions, 1 to {MAX_DIMS} can be")
        shape = tuple(self.scalar("Q") for _ in range(n_dims))
        if not all(shape) or prod(shape) >> 60:
            raise _DamagedError(f"the tensor {name!a} is {' x '.join(map(str, shape))}")
        return TensorInfo(name, shape, self.scalar("I"), self.scalar("Q"))
