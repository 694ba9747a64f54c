"""GGUF files that lie: mutants of the bundled model and of its mmproj, and what becomes of an answer with them.

A mutant is refused in one line, or answers with finite numbers. What a value should have been is not known here.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

SUFFIXES = (".gguf",)
MEMORY_MIB = 600
SHORT = 12  # each that is not refused at once has a process of its own, and a model

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
FLOAT, TEXT, ARRAY = 6, 8, 9
INTEGERS = (0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 64, 100, 127, 255, 256, 1000, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e38, float("nan"), float("inf"), float("-inf"))
WORDS = (
    *(b"", b"x", b"llama", b"qwen2", b"clip", b"gpt2", b"bert", b"t5", b"rwkv", b"none", b"default", b"mlp"),
    *(b"llava_onevision", b"qwen2vl_merger", b"\xff\xfe", b"\x1b[31m", b"a" * 70_000, b"{{ x", b"onevision", b"stock"),
)
NEW_KEYS = (
    *("general.alignment", "split.count", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.scores"),
    *("qwen2.rope.dimension_count", "qwen2.attention.key_length", "qwen2.rope.scaling.factor", "qwen2.expert_count"),
    *("qwen2.attention.sliding_window", "qwen2.rope.scaling.type", "tokenizer.ggml.add_space_prefix"),
    *("clip.vision.feature_layer", "clip.vision.attention.head_dim", "clip.has_audio_encoder", "aim.vision.do_pad"),
    *("clip.vision.projector.scale_factor", "clip.vision.n_wa_pattern", "aim.video.pool", "aim.video.pool_stride"),
)
GGML = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 14: (256, 210), 24: (1, 1), 26: (1, 4), 30: (1, 2)}  # types


@dataclass(frozen=True)
class Entry:
    """A key. value: its bytes, behind its kind; of an array with the kind and number of its elements."""

    key: bytes
    kind: int
    value: bytes


@dataclass(frozen=True)
class Tensor:
    """data: its bytes as they lay in the file. offset: None where it lies behind the one before it."""

    name: bytes
    shape: tuple[int, ...]
    type: int
    data: bytes
    offset: int | None = None


@dataclass(frozen=True)
class File:
    """n_keys, n_tensors: what the head says; None: as many as there are."""

    entries: tuple[Entry, ...]
    tensors: tuple[Tensor, ...]
    magic: bytes = b"GGUF"
    version: int = 3
    n_keys: int | None = None
    n_tensors: int | None = None
    alignment: int = field(default=32)


def seeds(folder: Path) -> list[Path]:
    """The bundled model's first three layers, and its mmproj."""
    source = Path(__file__).parents[3] / "aim_local" / "data" / "model"
    whole = parse((source / "model.gguf").read_bytes())
    entries = [replace(e, value=struct.pack("<I", 3)) if e.key == b"qwen2.block_count" else e for e in whole.entries]
    kept = (b"blk.0.", b"blk.1.", b"blk.2.")
    tensors = [t for t in whole.tensors if not t.name.startswith(b"blk.") or t.name[:6] in kept]
    small = folder / "model.gguf"
    small.write_bytes(written(replace(whole, entries=tuple(entries), tensors=tuple(tensors))))
    return [small, Path(shutil.copy(source / "mmproj.gguf", folder))]


def read(path: Path) -> None:
    """Lists it among the models, and asks it about a grey picture."""
    import numpy as np

    from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig, store
    from aim_local.store.gguf_files import is_mmproj
    from aim_local.store.names import bundled_folder

    _list(path)
    bundled = bundled_folder()
    assert bundled
    model, mmproj = (bundled / "model.gguf", path) if is_mmproj(path) else (path, bundled / "mmproj.gguf")
    assert store.resolve(model, mmproj).model.is_file()
    picture = np.full((112, 112, 3), 99, np.uint8)
    with VisionLLM.load(model, mmproj, LoadConfig(n_threads=1)) as llm:
        answer = llm.generate("What is it?", [picture], generate=GenerateConfig(max_tokens=2))
        assert "\ufffd\ufffd" not in answer.text
        filled = llm.prefill("What is it?", [picture], tokens=VisualTokenConfig.paper())
        assert np.isfinite(filled.logits).all()


def _list(path: Path) -> None:
    """As one of the store's models: the listing has to go on."""
    from aim_local import store

    with tempfile.TemporaryDirectory() as scratch:
        before = os.environ.get("AIM_LOCAL_HOME")
        folder = Path(scratch) / "models" / "bent"
        folder.mkdir(parents=True)
        shutil.copy(path, folder / "model.gguf")
        os.environ["AIM_LOCAL_HOME"] = scratch
        try:
            assert {entry.name for entry in store.list_models()} == {"demo", "bent"}
        finally:
            os.environ.pop("AIM_LOCAL_HOME")
            if before is not None:
                os.environ["AIM_LOCAL_HOME"] = before


# --- the format ------------------------------------------------------------------------------------------------------


def parse(data: bytes) -> File:
    """Of a whole file. Raises struct.error, KeyError or ValueError for what is none."""
    version, n_tensors, n_keys = struct.unpack_from("<IQQ", data, 4)
    at, entries, heads = 24, [], []
    for _ in range(n_keys):
        key, at = _text(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        end = _end(data, at + 4, kind)
        entries.append(Entry(key, kind, data[at + 4 : end]))
        at = end
    for _ in range(n_tensors):
        name, at = _text(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{n_dims}Q", data, at + 4)
        at += 4 + 8 * n_dims
        heads.append((name, shape, *struct.unpack_from("<IQ", data, at)))
        at += 12
    begin = at + -at % 32
    tensors = tuple(
        Tensor(name, shape, kind, data[begin + offset : begin + offset + size_of(shape, kind)])
        for name, shape, kind, offset in heads
    )
    return File(tuple(entries), tensors, version=version)


def size_of(shape: tuple[int, ...], kind: int) -> int:
    block, n = GGML.get(kind, (1, 4))
    return prod(shape) // block * n


def written(file: File) -> bytes:
    head = file.magic + struct.pack("<I", file.version)
    head += struct.pack("<Q", len(file.tensors) if file.n_tensors is None else file.n_tensors)
    head += struct.pack("<Q", len(file.entries) if file.n_keys is None else file.n_keys)
    head += b"".join(_named(e.key) + struct.pack("<I", e.kind) + e.value for e in file.entries)
    body = bytearray()
    for tensor in file.tensors:
        offset = len(body) if tensor.offset is None else tensor.offset
        head += _named(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape) + struct.pack("<IQ", tensor.type, offset)
        body += tensor.data + bytes(-len(tensor.data) % file.alignment)
    return head + bytes(-len(head) % file.alignment) + bytes(body)


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    (n,) = struct.unpack_from("<Q", data, at)
    if at + 8 + n > len(data):
        raise ValueError("beyond the end")
    return data[at + 8 : at + 8 + n], at + 8 + n


def _named(name: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name


def _end(data: bytes, at: int, kind: int) -> int:
    if kind == TEXT:
        return _text(data, at)[1]
    if kind != ARRAY:
        return at + struct.calcsize(SCALARS[kind])
    inner, n = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner != TEXT:
        return at + n * struct.calcsize(SCALARS[inner])
    for _ in range(n):
        at = _text(data, at)[1]
    return at


# --- mutants ---------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One lie, seldom two, in a file that is whole otherwise; in one that is none, other bytes."""
    if rng.random() < 0.08:
        return _bytes(data, rng)
    try:
        file = parse(data)
        for _ in range(2 if rng.random() < 0.1 else 1):
            bend = rng.choices((_key, _tensor, _weights, _counts), (50, 35, 10, 5))[0]
            file = bend(file, rng)
        return written(file)
    except (struct.error, KeyError, ValueError, OverflowError):  # bent before
        return _bytes(data, rng)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes of the head, or the file's end."""
    if rng.random() < 0.3:
        return data[: rng.randrange(len(data) + 1)]
    bent, most = bytearray(data), min(len(data), 20_000)
    if not bent:
        return b"GGUF"
    for _ in range(rng.randint(1, 4)):
        bent[rng.randrange(most)] = rng.randrange(256)
    return bytes(bent)


def _key(file: File, rng: random.Random) -> File:
    entries = list(file.entries)
    i = rng.randrange(len(entries))
    entry, what = entries[i], rng.random()
    if what < 0.05:
        entries.insert(rng.randrange(len(entries) + 1), entry)
    elif what < 0.15:
        del entries[i]
    elif what < 0.22:
        entries[i] = replace(
            entry, key=rng.choice((entry.key + b"_", b"", b"\xff", rng.choice(entries).key, entry.key[:-1]))
        )
    elif what < 0.27:
        entries.append(_new_entry(rng))
    elif what < 0.45:
        entries[i] = replace(entry, **_value(rng))
    elif what < 0.5:
        entries[i] = replace(entry, kind=rng.randrange(16))
    else:
        entries[i] = replace(entry, value=_near(entry, rng))
    return replace(file, entries=tuple(entries))


def _new_entry(rng: random.Random) -> Entry:
    return Entry(rng.choice(NEW_KEYS).encode(), **_value(rng))


def _value(rng: random.Random) -> dict[str, int | bytes]:
    """A kind and a value of it."""
    kind = rng.choice((*SCALARS, TEXT, ARRAY, ARRAY))
    if kind == TEXT:
        return {"kind": kind, "value": _named(rng.choice(WORDS))}
    if kind != ARRAY:
        return {"kind": kind, "value": _scalar(kind, rng)}
    if rng.random() < 0.1:  # one in the other
        depth = rng.choice((2, 30, 5000))
        return {"kind": kind, "value": struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", 0, 0)}
    inner, n = rng.choice((*SCALARS, TEXT)), rng.choice((0, 1, 2, 3, 4, 7, 474, 2000))
    values = [_named(rng.choice(WORDS[:12])) if inner == TEXT else _scalar(inner, rng) for _ in range(n)]
    said = rng.choice((n, n, n, n + 1, 2**40))
    return {"kind": kind, "value": struct.pack("<IQ", inner, said) + b"".join(values)}


def _scalar(kind: int, rng: random.Random) -> bytes:
    code = SCALARS[kind]
    if code in "fd":
        value = rng.choice(FLOATS)
        return struct.pack(f"<{code}", value)
    size = struct.calcsize(code)
    return (rng.choice(INTEGERS) & (1 << 8 * size) - 1).to_bytes(size, "little")


def _near(entry: Entry, rng: random.Random) -> bytes:
    """Another value of the same kind."""
    if entry.kind in SCALARS:
        if entry.kind != FLOAT and rng.random() < 0.5:
            size = struct.calcsize(SCALARS[entry.kind])
            number = int.from_bytes(entry.value, "little") + rng.choice((-2, -1, 1, 2, 3))
            return (number & (1 << 8 * size) - 1).to_bytes(size, "little")
        return _scalar(entry.kind, rng)
    if entry.kind == TEXT:
        text = entry.value[8:]
        return rng.choice(
            (_named(rng.choice(WORDS)), _named(text + b"x"), _named(text[:-1]), struct.pack("<Q", 2**50) + text)
        )
    inner, n = struct.unpack_from("<IQ", entry.value)
    parts = _elements(entry.value, inner, n)
    what = rng.random()
    if parts and what < 0.25:
        parts[rng.randrange(len(parts))] = rng.choice(parts)
    elif parts and what < 0.45:
        del parts[rng.randrange(len(parts))]
    elif parts and what < 0.6:
        parts.append(rng.choice(parts))
    elif what < 0.7:
        parts = []
    elif parts:
        parts[rng.randrange(len(parts))] = _named(rng.choice(WORDS)) if inner == TEXT else _scalar(inner, rng)
    return struct.pack("<IQ", inner, rng.choice((len(parts),) * 9 + (2**40,))) + b"".join(parts)


def _elements(value: bytes, inner: int, n: int) -> list[bytes]:
    at, parts = 12, []
    for _ in range(n):
        end = _end(value, at, inner)
        parts.append(value[at:end])
        at = end
    return parts


def _tensor(file: File, rng: random.Random) -> File:
    tensors = list(file.tensors)
    i = rng.randrange(len(tensors))
    bends: tuple[Callable[[list[Tensor], int, random.Random], None], ...] = (
        _renamed, _dropped, _reshaped, _reshaped, _retyped, _moved, _resized, _resized,
    )  # fmt: skip
    rng.choice(bends)(tensors, i, rng)
    return replace(file, tensors=tuple(tensors))


def _renamed(tensors: list[Tensor], i: int, rng: random.Random) -> None:
    name, j = tensors[i].name, rng.randrange(len(tensors))
    if rng.random() < 0.3:
        tensors[i], tensors[j] = replace(tensors[i], name=tensors[j].name), replace(tensors[j], name=name)
        return
    other = (name + b"s", name.replace(b".bias", b".b"), name[:-1], tensors[j].name, b"", b"\xff", b"n" * 64)
    tensors[i] = replace(tensors[i], name=rng.choice(other))


def _dropped(tensors: list[Tensor], i: int, rng: random.Random) -> None:
    if rng.random() < 0.2:
        tensors.append(tensors[i])
    else:
        del tensors[i]


def _reshaped(tensors: list[Tensor], i: int, rng: random.Random) -> None:
    """Another shape of the same data, or of none that is there."""
    shape = list(tensors[i].shape)
    d = rng.randrange(len(shape))
    what = rng.random()
    if what < 0.3:
        rng.shuffle(shape)
    elif what < 0.5:
        shape.append(1)
    elif what < 0.6 and len(shape) > 1:
        shape[:2] = [shape[0] * shape[1]]
    else:
        shape[d] = rng.choice((0, 1, shape[d] + 1, shape[d] * 2, shape[d] // 2, 2**31, 2**40, 2**63))
    tensors[i] = replace(tensors[i], shape=tuple(shape))


def _resized(tensors: list[Tensor], i: int, rng: random.Random) -> None:
    """Another shape with as much data as it takes, so that the file is whole: its layers disagree."""
    old = tensors[i]
    shape = list(old.shape)
    d = rng.randrange(len(shape))
    shape[d] = max(1, rng.choice((1, 2, shape[d] // 2, shape[d] - 1, shape[d] + 1, shape[d] * 2, 32)))
    n = size_of(tuple(shape), old.type)
    data = _filled(old.data, n)
    like = [j for j, t in enumerate(tensors) if t.name.split(b".")[-2:] == old.name.split(b".")[-2:]]
    for j in like if rng.random() < 0.3 else [i]:
        if tensors[j].shape == old.shape:
            tensors[j] = replace(tensors[j], shape=tuple(shape), data=data)


def _filled(data: bytes, n: int) -> bytes:
    """n bytes of the same, where they are not too many for a test."""
    n = min(n, 1 << 23)
    return (data * (n // max(1, len(data)) + 1))[:n]


def _retyped(tensors: list[Tensor], i: int, rng: random.Random) -> None:
    kind = rng.choice((*GGML, 3, 10, 39, 99, 2**31))
    n = size_of(tensors[i].shape, kind)
    data = tensors[i].data if rng.random() < 0.3 else _filled(tensors[i].data, n)
    tensors[i] = replace(tensors[i], type=kind, data=data)


def _moved(tensors: list[Tensor], i: int, rng: random.Random) -> None:
    tensors[i] = replace(tensors[i], offset=rng.choice((0, 1, 31, 32, 64, 1 << 20, 2**40, 2**64 - 32)))


def _weights(file: File, rng: random.Random) -> File:
    """Numbers that are none, or any bytes, in the data of a tensor."""
    tensors = list(file.tensors)
    i = rng.randrange(len(tensors))
    tensor = tensors[i]
    size = 4 if tensor.type == 0 else 2
    bad = (
        rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff"))
        if size == 4
        else rng.choice((b"\x00\x7e", b"\x00\x7c", b"\x00\xfc"))
    )
    data, n = bytearray(tensor.data), len(tensor.data) // size
    for j in range(n) if rng.random() < 0.2 else [rng.randrange(max(1, n))]:
        data[j * size : (j + 1) * size] = bad
    tensors[i] = replace(tensor, data=bytes(data[: len(tensor.data)]))
    return replace(file, tensors=tuple(tensors))


def _counts(file: File, rng: random.Random) -> File:
    n = rng.choice((0, 1, len(file.entries) - 1, len(file.entries) + 1, 1 << 17, 1 << 27, 1 << 40, (1 << 64) - 1))
    what = rng.random()
    if what < 0.4:
        return replace(file, n_keys=n)
    if what < 0.8:
        return replace(file, n_tensors=n)
    if what < 0.9:
        return replace(file, version=rng.choice((0, 1, 2, 4, 1 << 24)))
    return replace(file, alignment=rng.choice((1, 8, 64, 4096)))
