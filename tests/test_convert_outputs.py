"""The output folder: whole or not at all, and what its manifest says."""

import errno
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
from convert_models import F32, After, content, tensors  # noqa: E402

from aim_local.convert import ConvertError, convert, pipeline, staging  # noqa: E402
from aim_local.store import files  # noqa: E402

folders = convert_models.folders


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_interrupted_conversion_leaves_nothing(share: float, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(folders["llava"], tmp_path / "a" / "b" / "out", progress=After(KeyboardInterrupt(), share))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing_and_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match=r"the disk filled up while writing .*out; nothing was left behind"):
        convert(folders["llava"], tmp_path / "out", progress=After(OSError(errno.ENOSPC, "No space left on device")))
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_noticed_before(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        ConvertError,
        match=r"out needs 0\.\d MiB and the disk has 0\.0 MiB free; free some space or write to another disk",
    ):
        convert(folders["llava"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.Part, "_make", refuse)
    with pytest.raises(
        ConvertError, match=r"out cannot be written \(Permission denied\); name a folder you may write to"
    ):
        convert(folders["llava"], tmp_path / "x" / "out")
    assert list(tmp_path.iterdir()) == []


def test_output_below_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConvertError, match="cannot be written"):
        convert(folders["llava"], tmp_path / "file" / "out")
    with pytest.raises(ConvertError, match="exists and is not a folder"):
        convert(folders["llava"], tmp_path / "file")


def test_earlier_conversion_is_replaced_whole_or_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    first = content(convert(folders["llava"], tmp_path / "out").folder)
    with pytest.raises(KeyboardInterrupt):
        convert(folders["llava_onevision"], tmp_path / "out", progress=After(KeyboardInterrupt()))
    assert content(tmp_path / "out") == first
    convert(folders["llava_onevision"], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "aim.json").read_text())["architecture"] == "llava_onevision"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_foreign_files_are_not_overwritten(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").touch()
    with pytest.raises(ConvertError, match=r"holds other files \(diary\.txt\); name a new or empty folder"):
        convert(folders["llava"], tmp_path / "out")
    with pytest.raises(ConvertError, match="holds other files"):
        convert(folders["llava"], folders["llava"])


def test_progress_and_manifest(folders: dict[str, Path], tmp_path: Path) -> None:

    calls: list[tuple[int, int, str]] = []
    result = convert(folders["llava"], tmp_path / "out", F32, progress=lambda *a: calls.append(a))
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)
    assert calls[-1][0] == calls[-1][1]
    manifest = json.loads((tmp_path / "out" / "aim.json").read_text())
    assert manifest["format"] == pipeline.FORMAT
    for key, path in (("model", result.model), ("mmproj", result.mmproj)):
        entry = manifest["files"][key]
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (entry["path"], entry["bytes"]) == (path.name, path.stat().st_size)
        assert entry["tensors"] == result.tensors[key] == len(tensors(path))
    assert str(folders["llava"]) not in (tmp_path / "out" / "aim.json").read_text()
