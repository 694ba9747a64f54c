"""Damaged files of weights: what the safetensors library refuses, we refuse, in one line that says what is wrong."""

import json
import re
import struct
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

import convert_models  # noqa: E402
from checkpoints import state_of, write_json, write_llava, write_weights  # noqa: E402
from convert_models import WRITE, model_of  # noqa: E402

from aim_local.convert import ConvertError, convert  # noqa: E402
from aim_local.convert.checkpoint import read_headers  # noqa: E402
from aim_local.convert.safetensors_header import read_safetensors_header  # noqa: E402

folders = convert_models.folders
Header = dict[str, Any]
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "BOOL": 1}


def packed(header: Header | str, data: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def parts(path: Path) -> tuple[Header, bytes]:
    content = path.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def library_takes(content: bytes) -> bool:
    try:
        safetensors.deserialize(content)
    except Exception:  # its own error class, of Rust
        return False
    return True


def we_take(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    told = ""
    try:
        read_safetensors_header(path)
    except ConvertError as e:
        told = str(e)
    assert "\n" not in told
    assert not told or told.startswith(str(path))
    return not told


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Files of a few tensors, of which most have one fault: an offset, a hole, bytes too many or too few."""
    header: Header = {}
    at = 0
    for i in range(draw(st.integers(0, 4))):
        dtype, shape = draw(st.sampled_from(sorted(SIZES))), draw(st.lists(st.integers(0, 3), max_size=2))
        size = SIZES[dtype] * prod(shape)
        at += draw(st.sampled_from([0] * 9 + [8]))  # a hole
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    if draw(st.booleans()) and header:
        moved = header[draw(st.sampled_from(sorted(header)))]["data_offsets"]
        shift = draw(st.integers(-8, 8))
        moved[:] = moved[0] + shift, moved[1] + draw(st.sampled_from([shift, 0]))
    extra: Header = draw(st.sampled_from([{}, {"__metadata__": {"format": "pt"}}]))
    order = draw(st.permutations(sorted(header)))
    n_bytes = max(0, at + draw(st.sampled_from([0] * 6 + [-1, 5])))
    return packed(extra | {name: header[name] for name in order}, bytes(n_bytes))


@settings(max_examples=300)
@given(content=files())
def test_we_take_what_the_library_takes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.safetensors"
    assert we_take(path, content) == library_takes(content)


def share(header: Header, data: bytes) -> bytes:
    header["b"]["data_offsets"] = header["a"]["data_offsets"]
    return packed(header, data)


def leave_a_hole(header: Header, data: bytes) -> bytes:
    header["c"]["data_offsets"] = [20, 28]
    return packed(header, data + bytes(4))


def lie_about_a_size(header: Header, data: bytes) -> bytes:
    header["d"] = {"dtype": "I64", "shape": [2], "data_offsets": [24, 32]}
    return packed(header, data + bytes(8))


def name_twice(header: Header, data: bytes) -> bytes:
    text = json.dumps(header)
    return packed(f'{text[:-1]}, "a": {json.dumps({**header["a"], "dtype": "I32"})}}}', data)


DAMAGE: dict[str, tuple[Callable[[Header, bytes], bytes], str]] = {
    "overlap": (share, r"broken safetensors header \(a and b share bytes\); download it again"),
    "hole": (leave_a_hole, r"broken safetensors header \(4 bytes in front of c are no tensor's\); download"),
    "trailing": (
        lambda h, d: packed(h, d + bytes(1000)),
        r"is longer than its tensors \(1000 bytes behind the last one\)",
    ),
    "cut short": (lambda h, d: packed(h, d[:-1]), r"is cut short \(\d+ of \d+ bytes\); download it again"),
    "twice": (name_twice, r"broken safetensors header \(it has 'a' twice\); download it again"),
    "size": (lie_about_a_size, r"broken safetensors header \(no table of tensors\); download it again"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_wrong_is_told(kind: str, tmp_path: Path) -> None:
    at, header = 0, {}
    for name in "abc":
        header[name] = {"dtype": "F32", "shape": [2], "data_offsets": [at, at := at + 8]}
    damage, line = DAMAGE[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(header, bytes(24)))
    assert not library_takes(path.read_bytes()) or kind == "twice"  # the format forbids it, the library lets it pass
    with pytest.raises(ConvertError, match=line):
        read_safetensors_header(path)


@pytest.mark.parametrize("kind", ["overlap", "trailing"])
@pytest.mark.parametrize("shards", [1, 3])
def test_nothing_is_converted(kind: str, shards: int, folders: dict[str, Path], tmp_path: Path) -> None:
    src = WRITE["llava_onevision"](tmp_path / "src", model=model_of("llava_onevision"), shards=shards)
    path = sorted(src.glob("*.safetensors"))[-1]
    header, data = parts(path)
    if kind == "overlap":
        a, b = [n for n in sorted(header) if header[n].get("shape") == [128, 64]][:2]
        header[a]["data_offsets"] = header[b]["data_offsets"]
    path.write_bytes(packed(header, data + bytes(1000 * (kind == "trailing"))))
    with pytest.raises(ConvertError, match=rf"{re.escape(path.name)} (has a broken|is longer).*download it again"):
        convert(src, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_an_index_of_another_save_is_told(tmp_path: Path) -> None:
    src = write_llava(tmp_path / "src", model=model_of("llava"), shards=2)
    index = json.loads((src / "model.safetensors.index.json").read_text())
    file = "model-00002-of-00002.safetensors"
    write_json(src / "model.safetensors.index.json", {"weight_map": index["weight_map"] | {"model.lost": file}})
    with pytest.raises(ConvertError, match=r"index\.json lists 1 tensors that the shards do not have \(model\.lost\);"):
        convert(src, tmp_path / "out")


def test_a_torch_file_that_promises_more_than_it_has(tmp_path: Path) -> None:
    """The pickle says how long a tensor is, the zip around it what there is."""
    src = write_llava(tmp_path / "src", model=model_of("llava"), torch_file=True)
    assert len(read_headers(src)) == len(state_of(model_of("llava"), "today"))
    path = src / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    longest = max((name for name in entries if "/data/" in name), key=lambda name: len(entries[name]))
    entries[longest] = entries[longest][:-64]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ConvertError, match=r"pytorch_model\.bin: .* is longer than the data it is made of; download"):
        convert(src, tmp_path / "out")


def test_an_old_torch_file(tmp_path: Path) -> None:
    """Before torch 1.6 it was no zip."""
    src = write_llava(tmp_path / "src", model=model_of("llava"))
    state = state_of(model_of("llava"), "today")
    (src / "model.safetensors").unlink()
    torch.save(state, src / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(
        ConvertError, match=r"pytorch_model\.bin is of the form that torch wrote before its version 1\.6;"
    ):
        convert(src, tmp_path / "out")


def test_parts_of_one_storage_are_no_damage(tmp_path: Path) -> None:
    """torch keeps what shares memory once: two names of one tensor, and slices of a longer one."""
    whole = torch.arange(24.0).reshape(6, 4)
    torch.save({"a": whole, "b": whole, "c": whole[2:4]}, tmp_path / "pytorch_model.bin")
    found = read_headers(tmp_path)
    assert found["c"].read_rows(0, 2).tolist() == whole[2:4].tolist()
    assert found["b"].read_rows(0, 6).tolist() == whole.tolist()


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    """In any order of names, with empty tensors and metadata."""
    state = {"z": torch.ones(2, 3), "a": torch.zeros(0, 4), "m": torch.arange(5), "b": torch.ones(1, dtype=torch.bool)}
    write_weights(tmp_path, state, 1, torch.float32)
    assert set(read_headers(tmp_path)) == set(state)
