"""Small JSON files that describe others: of one greatest size, and a wrong kind is said with the file's name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_files import write_folder

from aim_local import store
from aim_local.bounded import bounded_bytes
from aim_local.errors import ModelError
from aim_local.store.digests import known_digest
from aim_local.store.fetched import was_fetched
from aim_local.store.manifest import check_contents
from aim_local.store.plain_json import MOST_BYTES, read_object


def long_file(path: Path) -> Path:
    """An object, and spaces behind it: sparse on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.truncate(path, 300 << 20)
    return path


def test_a_file_too_long_is_not_read(tmp_path: Path) -> None:
    path = long_file(tmp_path / "a.json")
    with pytest.raises(ValueError, match="it has more than 16 MiB"):
        read_object(path)
    path.write_bytes(b"{}".ljust(MOST_BYTES))
    assert read_object(path) == {}
    path.write_bytes(b"{}".ljust(MOST_BYTES + 1))
    with pytest.raises(ValueError, match="more than 16 MiB"):
        read_object(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        bounded_bytes(tmp_path / "pipe", MOST_BYTES)
    with pytest.raises(FileNotFoundError):
        bounded_bytes(tmp_path / "none", MOST_BYTES)


LONG: dict[str, Callable[[Path], object]] = {
    "aim.json": store.resolve,
    "hub.json": store.read_origin,
}


@pytest.mark.parametrize("name", LONG)
def test_a_model_with_a_file_too_long(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    long_file(folder / name)
    with pytest.raises(ModelError, match=f"{name}: cannot be read .*more than 16 MiB"):
        LONG[name](folder)


def test_records_too_long_count_for_nothing(tmp_path: Path) -> None:
    long_file(store.cache_folder() / "digests.json")
    long_file(store.cache_folder() / "seen.json")
    long_file(store.data_folder() / "fetched.jsonl")
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    assert known_digest(path) == hashlib.sha256(b"abc").hexdigest()
    assert not was_fetched(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("null", "it is null, not a JSON object"),
        ("[]", "it is a list, not a JSON object"),
        ('"a"', "it is a text, not a JSON object"),
        ("12", "it is a whole number, not a JSON object"),
        ("{}", '"files" is no table'),
        ('{"files": null}', '"files" is no table'),
        ('{"files": {"model": null}}', '"files" is no table'),
        ('{"files": {"model": {}}}', "None is no file's name"),
        ('{"files": NaN}', "NaN is no JSON number"),
    ],
)
def test_a_manifest_of_the_wrong_kind(text: str, said: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / "aim.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        store.resolve(folder)
    assert str(caught.value).startswith(f"{folder / 'aim.json'}: cannot be read as a model's manifest (")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["null", "{}", '{"format": 1}', "[1]"])
def test_an_origin_of_the_wrong_kind(text: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / "hub.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        store.read_origin(folder)
    assert str(caught.value).startswith(f"{folder / 'hub.json'}: cannot be read (")
    assert "NoneType" not in str(caught.value)
    assert "('" not in str(caught.value)


def test_a_manifest_is_read_once_to_compare_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "mine")
    for told in (manifest := json.loads((folder / "aim.json").read_text()))["files"].values():
        told["sha256"] = hashlib.sha256((folder / told["path"]).read_bytes()).hexdigest()
    (folder / "aim.json").write_text(json.dumps(manifest))
    paths, opened = store.resolve(folder), list[str]()

    def watched(path: Path) -> dict[str, Any]:
        opened.append(path.name)
        return read_object(path)

    monkeypatch.setattr("aim_local.store.names.read_object", watched)
    check_contents(paths)
    assert opened == ["aim.json"]
    (folder / "mmproj.gguf").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"mmproj.gguf: is not the file that aim.json beside it tells of"):
        check_contents(paths)
