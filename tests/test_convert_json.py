"""Bent JSON in any file of a checkpoint: one clear line or none at all, never a traceback.

Values of every small file are replaced by values of all kinds, family by family, up to where the first byte would be
written. What is left to llama.cpp's converter runs in its own process, whose failures are one line by construction
(test_convert_refusals.py has one).
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import checkpoints
import thorough
from convert_models import model_of
from family_checkpoints import write_family
from thorough import few

from aim_local.convert import ConvertConfig, ConvertError
from aim_local.convert.json_kinds import check_kinds
from aim_local.convert.pipeline import plan_work

OURS = {"llava_onevision": checkpoints.write_onevision, "llava": checkpoints.write_llava}
FAMILIES = (*OURS, "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl3", "gemma3")
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 3.5, 10**30, float("nan"), float("inf"), "", "text", [], [1, "a"], [[]], {}, {"a": [1]},
)  # fmt: skip
FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
)
N_CHANGES = 50  # per file and family, drawn; all of them, about 2,000 a family, were run once


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bent")
    made = {name: write(root / name, model=model_of(name)) for name, write in OURS.items()}
    return made | {name: write_family(name, root / name).folder for name in FAMILIES if name not in OURS}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value; of long lists and tables the first five."""
    yield at
    if isinstance(value, dict):
        for key in list(value)[: 5 if len(value) > 60 else None]:
            yield from places(value[key], (*at, key))
    if isinstance(value, list):
        for i in range(min(len(value), 5)):
            yield from places(value[i], (*at, i))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copy = value.copy()
    copy[at[0]] = put(value[at[0]], at[1:], new)
    return copy


def plan(folder: Path) -> str:
    """The error line, empty where the checkpoint was taken."""
    try:
        plan_work(folder, ConvertConfig())
    except ConvertError as e:
        return str(e)
    return ""


@pytest.mark.parametrize("family", few(FAMILIES, ("llava_onevision", "qwen2_5_vl", "gemma3")))
def test_values_of_any_kind(family: str, folders: dict[str, Path]) -> None:
    draw, refused, run = random.Random(family), 0, 0
    for name in FILES:
        path = folders[family] / name
        if not path.is_file():
            continue
        text = path.read_text()
        content = json.loads(text)
        changes = [(at, new) for at in places(content) for new in WRONG]
        try:
            for at, new in draw.sample(changes, min(thorough.examples(N_CHANGES), len(changes))):
                path.write_text(json.dumps(put(content, at, new)))
                line = plan(folders[family])
                assert "\n" not in line, (name, at, new)
                refused, run = refused + bool(line), run + 1
        finally:
            path.write_text(text)
    print(f"{family}: {refused} of {run} changes refused")
    assert refused > run // 20
    assert plan(folders[family]) == ""


BROKEN = {
    "truncated": lambda text: text[: len(text) // 2].encode(),
    "not UTF-8": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "empty": lambda text: b"",
    "deep": lambda text: b'{"a":' * 10000 + b"1" + b"}" * 10000,
    "deep list": lambda text: b"[" * 10000 + b"]" * 10000,
    "digits": lambda text: b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "a list": lambda text: b"[1, 2]",
    "null": lambda text: b"null",
    "zeros": lambda text: bytes(64),
}


@pytest.mark.parametrize("name", [*FILES, "model.safetensors.index.json"])
@pytest.mark.parametrize("how", BROKEN)
def test_files_that_are_no_json(name: str, how: str, folders: dict[str, Path]) -> None:
    for family in ("llava_onevision", "qwen3_vl"):
        path = folders[family] / name
        text = path.read_bytes() if path.is_file() else None
        if text is None and "index" not in name:
            continue  # this family has its numbers in another file
        path.write_bytes(BROKEN[how]((text or b'{"weight_map": {"a": "b"}}').decode()))
        try:
            line = plan(folders[family])
        finally:
            path.write_bytes(text) if text is not None else path.unlink()
        assert line, (family, name, how)
        assert name in line
        assert "\n" not in line


INDEXES = (
    {},
    {"weight_map": None},
    {"weight_map": []},
    {"weight_map": {"a": 1}},
    {"weight_map": {"a": ["b"]}},
    {"weight_map": {"a": "../../config.json"}},
    {"weight_map": {"a": "/etc/passwd"}},
    {"weight_map": {"a": ""}},
)


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_an_index_that_names_no_files_beside_it(index: dict[str, Any], folders: dict[str, Path]) -> None:
    path = folders["qwen3_vl"] / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    try:
        line = plan(folders["qwen3_vl"])
    finally:
        path.unlink()
    assert "weight" in line
    assert "\n" not in line


HEADERS = (
    [],
    {"a": 1},
    {"a": {}},
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
    {"a": {"dtype": 5, "shape": [2], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}},
    {"a": {"dtype": "F32", "shape": [1 << 80], "data_offsets": [0, 4 << 80]}},
)


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_a_header_of_weights_that_is_bent(header: Any, folders: dict[str, Path]) -> None:
    path = folders["qwen2_vl"] / "model.safetensors"
    data, text = path.read_bytes(), json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    try:
        line = plan(folders["qwen2_vl"])
    finally:
        path.write_bytes(data)
    assert "model.safetensors" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("processor_config.json", "image_std", [0.5, 1e39, 0.5]),
        ("preprocessor_config.json", "image_mean", -1e308),
        ("config.json", "rms_norm_eps", 1e-46),
        ("config.json", "rope_theta", 1e300),
        ("tokenizer_config.json", "added_tokens_decoder", {"9" * 5000: {"content": "a"}}),
        ("tokenizer_config.json", "added_tokens_decoder", {"2147483648": {"content": "a"}}),
    ],
)
def test_numbers_that_a_gguf_cannot_hold(file: str, key: str, value: Any) -> None:
    with pytest.raises(ConvertError, match=f"^{file}: {key} is "):
        check_kinds({key: value}, file)


def test_numbers_at_the_edge() -> None:
    check_kinds({"image_mean": [3.4028234e38, -3.4028234e38, 0.0]}, "preprocessor_config.json")
    check_kinds({"rms_norm_eps": 1.2e-38}, "config.json")
    check_kinds({"added_tokens_decoder": {"2147483647": {"content": "a"}}}, "tokenizer_config.json")
