"""Files that break GGUF's format: each is refused in one line, soon, and hides no other model in a listing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bent_gguf as bent
import pytest
from fuzz.targets.gguf import ARRAY, Entry, File, written

from aim_local import store
from aim_local.convert.errors import ConvertError
from aim_local.convert.quantize import quantize
from aim_local.convert.quantize_vision import quantize_vision
from aim_local.errors import ModelError
from aim_local.store.gguf_header import read_architecture, read_header
from aim_local.store.memory import memory_needed

NAME = "blk.0.attn_q.bias"


def nested(depth: int) -> bytes:
    return struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", 0, 0)


def key(name: bytes) -> Callable[[File], File]:
    return lambda file: replace(file, entries=(*file.entries, Entry(name, **bent.number("uint8", 1))))


def tensor(**changes: object) -> Callable[[File], File]:
    return lambda file: bent.with_tensor(file, NAME, lambda t: replace(t, **changes))


def value(**bytes_of: object) -> Callable[[File], File]:
    return lambda file: bent.with_key(file, "a.key", dict(bytes_of))


BENDS: dict[str, tuple[Callable[[File], File], str]] = {
    "a key twice": (key(b"general.name"), "the key 'general.name' is there twice"),
    "a key without a name": (key(b""), "a key has no name"),
    "a key of no text": (key(b"\xff\xfe"), "a key has a name that is not UTF-8"),
    "an array in an array": (value(kind=ARRAY, value=nested(2)), "'a.key' is an array of arrays"),
    "100,000 arrays in arrays": (value(kind=ARRAY, value=nested(100_000)), "'a.key' is an array of arrays"),
    "a kind there is not": (value(kind=13, value=b""), "'a.key' is of kind 13"),
    "an array of a kind there is not": (value(kind=ARRAY, value=struct.pack("<IQ", 99, 0)), "'a.key' is of kind 99"),
    "an array beyond the end": (
        value(kind=ARRAY, value=struct.pack("<IQ", 4, 2**61)),
        "ends or breaks inside its head",
    ),
    "a text beyond the end": (value(kind=8, value=struct.pack("<Q", 2**50)), "ends or breaks inside its head"),
    "texts without end": (value(kind=ARRAY, value=struct.pack("<IQ", 8, 2**40)), "counts 1099511628463 texts"),
    "2^27 keys": (lambda file: replace(file, n_keys=2**27), "it counts 134217728 keys"),
    "2^40 tensors": (lambda file: replace(file, n_tensors=2**40), "it counts 1099511627776 tensors"),
    "alignment 1": (
        lambda f: bent.with_key(f, "general.alignment", bent.number("uint32", 1)),
        "general.alignment is 1",
    ),
    "alignment 8": (  # whole in itself, but no place for weights
        lambda f: replace(bent.with_key(f, "general.alignment", bent.number("uint32", 8)), alignment=8),
        "general.alignment is 8, it has to be a power of two, 32 to",
    ),
    "alignment 48": (lambda f: bent.with_key(f, "general.alignment", bent.number("uint32", 48)), "alignment is 48"),
    "alignment 2^31": (
        lambda f: bent.with_key(f, "general.alignment", bent.number("uint32", 2**31)),
        "has to be a power",
    ),
    "alignment as text": (
        lambda f: bent.with_key(f, "general.alignment", bent.text("32")),
        "general.alignment is '32'",
    ),
    "a tensor twice": (tensor(name=b"blk.1.attn_q.bias"), "the tensor 'blk.1.attn_q.bias' is there twice"),
    "a long name": (tensor(name=b"n" * 64), "has a name of more than 63 bytes"),
    "no dimension": (tensor(shape=()), "has 0 dimensions"),
    "five dimensions": (tensor(shape=(160, 1, 1, 1, 1)), "has 5 dimensions"),
    "nothing in it": (tensor(shape=(0,)), f"the tensor '{NAME}' is 0"),
    "too much in it": (tensor(shape=(2**40, 2**40)), f"the tensor '{NAME}' is 1099511627776 x 1099511627776"),
    "a type there is not": (tensor(type=99), "is of type 99, which there is not"),
    "half a block": (tensor(type=14), "has rows of 160, Q6_K is by 256"),
    "one over the other": (tensor(offset=0), f"the tensor '{NAME}' begins at 0"),
    "outside the file": (tensor(offset=2**40), f"the tensor '{NAME}' begins at 1099511627776"),
    "not aligned": (tensor(offset=1), f"the tensor '{NAME}' begins at 1,"),
}


@pytest.mark.parametrize("name", BENDS)
def test_a_broken_format_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    bend, said = BENDS[name]
    path = bent.save(bend(bent.whole("model")), tmp_path / "model.gguf")
    with pytest.raises(ModelError) as caught:
        read_header(path)
    print(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_architecture(path) in ("qwen2", "")


def test_whole_files_are_what_they_were(tmp_path: Path) -> None:
    """So that what is refused above is refused for its one lie."""
    for name in ("model", "mmproj"):
        path = bent.save(bent.whole(name), tmp_path / f"{name}.gguf")
        assert path.read_bytes() == (bent.FOLDER / f"{name}.gguf").read_bytes()
        read_header(path)


def test_another_alignment_is_read(tmp_path: Path) -> None:
    file = bent.with_key(bent.whole("mmproj"), "general.alignment", bent.number("uint32", 64))
    assert read_header(bent.save(replace(file, alignment=64), tmp_path / "a.gguf")).data_offset % 64 == 0


def test_bad_entries_hide_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_LOCAL_HOME", str(tmp_path))
    bad = {
        "nested": written(bent.with_key(bent.whole("model"), "x", {"kind": ARRAY, "value": nested(100_000)})),
        "counts": written(replace(bent.whole("model"), n_keys=2**27)),
        "twice": written(replace(bent.whole("mmproj"), entries=bent.whole("mmproj").entries * 2)),
        "cut": (bent.FOLDER / "model.gguf").read_bytes()[:9000],
        "infinite": written(
            bent.with_key(bent.whole("model"), "general.file_type", bent.number("float32", float("inf")))
        ),
    }
    for name, data in bad.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.gguf").write_bytes(data)
    (tmp_path / "models" / "manifest").mkdir()
    (tmp_path / "models" / "manifest" / "aim.json").write_text("[" * 100_000)
    found = {entry.name: entry.problem for entry in store.list_models()}
    assert list(found) == ["demo", *sorted([*bad, "manifest"])]
    assert [name for name, problem in found.items() if problem is None] == ["demo", "infinite"]
    assert not any("\n" in problem for problem in found.values() if problem)
    assert store.find_entry("nested").problem == found["nested"]


@pytest.mark.parametrize("name", ["100,000 arrays in arrays", "a key twice", "one over the other", "2^27 keys"])
def test_the_quantisers_read_no_other_format(name: str, tmp_path: Path) -> None:
    path = bent.save(BENDS[name][0](bent.whole("model")), tmp_path / "model.gguf")
    with pytest.raises(ConvertError, match="is not a readable GGUF"):
        quantize(path, tmp_path / "out.gguf", "q8_0")
    text = bent.with_key(bent.whole("mmproj"), "general.description", bent.text(b"\xff\xfe"))
    with pytest.raises(ConvertError, match=r"'general\.description' is a text that is not UTF-8"):
        quantize_vision(bent.save(text, path), tmp_path / "out.gguf", "q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("qwen2.block_count", bent.text("twelve")),
        ("qwen2.attention.head_count", bent.number("float32", float("nan"))),
        ("qwen2.embedding_length", bent.array("float32", *[1.0] * 2000)),
    ],
)
def test_how_much_memory_a_lie_takes(key: str, value: dict[str, int | bytes], tmp_path: Path) -> None:
    path = bent.save(bent.with_key(bent.whole("model"), key, value), tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=f"{key} is no number"):
        memory_needed(store.ModelPaths("a", path, None))
    none = bent.save(bent.with_key(bent.whole("model"), "qwen2.attention.head_count_kv", bent.array("int32")), path)
    assert memory_needed(store.ModelPaths("a", none, None)) > 0
