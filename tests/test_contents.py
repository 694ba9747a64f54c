"""A file whose contents changed is another file, whatever its size and its time of change say."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import aim_local.lab.compare.workspace as compare_space
from aim_local import VisionLLM
from aim_local.batch.clips import first_changed, marks, seen
from aim_local.batch.questions import Clip
from aim_local.config import LoadConfig
from aim_local.errors import ModelError
from aim_local.store import ModelPaths
from aim_local.store.chat_file import ChatFileError, check_identity, identity
from aim_local.store.digests import known_digest
from aim_local.store.manifest import check_contents
from aim_local.store.names import bundled_folder


def change(path: Path, at: int, restore: bool = True) -> None:
    """One byte, with the size and the time of change as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        value = file.read(1)[0]
        file.seek(at)
        file.write(bytes([value ^ 1]))
    if restore:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file whose middle 64 samples do not see."""
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(8 << 20))
    os.utime(path, (1e9, 1e9))
    return path


UNSEEN = 70_000 + 65_536  # between two samples of 64 KiB of 8 MiB


def test_a_digest(weights: Path) -> None:
    first = known_digest(weights)
    for at in (0, UNSEEN, 5 << 20):
        change(weights, at)
        assert known_digest(weights) != first
        change(weights, at)
        assert known_digest(weights) == first


def test_a_file_that_took_anothers_place(weights: Path, tmp_path: Path) -> None:
    first = known_digest(weights)
    other = tmp_path / "other"
    shutil.copy2(weights, other)
    change(other, UNSEEN)
    os.replace(other, weights)
    assert known_digest(weights) != first


def test_weights_of_a_comparison(weights: Path, tmp_path: Path) -> None:
    space = compare_space.Workspace(tmp_path / "out")
    first = space.sha256(weights)
    change(weights, UNSEEN)
    assert space.sha256(weights) != first


def test_a_saved_chat(weights: Path) -> None:
    paths = ModelPaths("m", weights, None)
    saved = identity(paths, "qwen2", LoadConfig())
    check_identity(Path("talk.aimchat"), saved, identity(paths, "qwen2", LoadConfig()), shows_media=False)
    change(weights, UNSEEN)
    with pytest.raises(ChatFileError, match="was saved with"):
        check_identity(Path("talk.aimchat"), saved, identity(paths, "qwen2", LoadConfig()), shows_media=False)


def test_clips_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(1000))
    os.utime(path, (1e9, 1e9))
    clips = [Clip("video", "clip.mp4", str(path))]
    found = seen(clips, marks(clips))
    assert first_changed([(clips, found)]) is None
    change(path, 500)
    assert first_changed([(clips, found)]) == clips[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A converted model."""
    bundled = bundled_folder()
    assert bundled is not None
    shutil.copytree(bundled, tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("name", ["model.gguf", "mmproj.gguf"])
def test_a_manifest_is_looked_at(folder: Path, name: str) -> None:
    change(folder / name, 1_000_000)
    with pytest.raises(ModelError, match=rf"{name}: is not the file that aim.json beside it tells of \(another sha256"):
        VisionLLM.load(folder)
    with pytest.raises(ModelError, match="another sha256"):
        VisionLLM.load(folder / "model.gguf", mmproj=folder / "mmproj.gguf")
    (folder / "aim.json").unlink()
    check_contents(ModelPaths("m", folder / "model.gguf", folder / "mmproj.gguf"))


def test_a_file_of_another_size(folder: Path) -> None:
    with (folder / "model.gguf").open("ab") as file:
        file.write(bytes(32))
    paths = ModelPaths("m", folder / "model.gguf", None)
    with pytest.raises(ModelError, match="6506240 bytes instead of 6506208"):
        check_contents(paths)


def test_a_manifest_of_other_files(folder: Path) -> None:
    """Swapped: a model that was quantised by hand in the place of the converted one."""
    told = json.loads((folder / "aim.json").read_text())
    told["files"]["model"]["sha256"] = told["files"]["mmproj"]["sha256"]
    (folder / "aim.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="another sha256"):
        VisionLLM.load(folder)
