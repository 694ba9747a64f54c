"""Which files a name means, and the listing of the local store."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf_files import write_folder, write_mmproj, write_model

from aim_local.errors import ModelError, UsageError
from aim_local.store import names as store
from aim_local.store.gguf_header import read_header


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundled model, whether this checkout has one or not."""
    folder = write_folder(tmp_path / "bundled")
    monkeypatch.setattr(store, "bundled_folder", lambda: folder)
    return folder


def test_no_argument_and_demo_are_the_bundled_model(demo: Path) -> None:
    assert store.resolve() == store.ModelPaths("demo", demo / "model.gguf", demo / "mmproj.gguf")
    assert store.resolve("demo") == store.resolve(None)


def test_bundled_model_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "bundled_folder", lambda: None)
    with pytest.raises(ModelError, match="no bundled model; name a model"):
        store.resolve()
    assert store.list_models() == []


def test_folder_of_convert(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    expected = store.ModelPaths("mine", folder / "model.gguf", folder / "mmproj.gguf")
    assert store.resolve(folder) == expected
    assert store.resolve(str(folder)) == expected


def test_gguf_finds_the_mmproj_beside_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "llava-q4.gguf")
    assert store.resolve(model) == store.ModelPaths("llava-q4", model, None)
    mmproj = write_mmproj(tmp_path / "mmproj-f16.gguf")
    assert store.resolve(str(model)).mmproj == mmproj
    assert store.resolve(tmp_path).model == model
    assert store.resolve(mmproj) == store.ModelPaths("llava-q4", model, mmproj)


def test_ambiguous_mmproj_is_not_guessed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "llava.gguf")
    for name in ("mmproj-f16.gguf", "mmproj-q8_0.gguf"):
        write_mmproj(tmp_path / name)
    with pytest.raises(
        ModelError, match=r"2 vision towers \(mmproj-f16.gguf, mmproj-q8_0.gguf\); name one with mmproj=FILE"
    ):
        store.resolve(model)


def test_mmproj_named(tmp_path: Path) -> None:
    model = write_model(tmp_path / "llava.gguf")
    (tmp_path / "vision").mkdir()
    tower = write_mmproj(tmp_path / "vision" / "mmproj.gguf")
    assert store.resolve(model, tower).mmproj == tower
    assert store.resolve(model, tower.parent).mmproj == tower
    with pytest.raises(ModelError, match="no such mmproj file"):
        store.resolve(model, tmp_path / "none.gguf")


def test_split_model_is_its_first_part(tmp_path: Path) -> None:
    for part in (1, 2):
        write_model(tmp_path / f"big-0000{part}-of-00002.gguf")
    assert store.resolve(tmp_path).model.name == "big-00001-of-00002.gguf"


def test_name_in_the_store() -> None:
    folder = write_folder(store.models_folder() / "onevision-q8")
    assert store.resolve("onevision-q8").model == folder / "model.gguf"


def test_a_store_name_wins_over_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(store.models_folder() / "twin")
    write_folder(tmp_path / "twin")
    monkeypatch.chdir(tmp_path)
    assert store.resolve("twin").model == folder / "model.gguf"
    assert store.resolve("./twin").model.resolve() == tmp_path / "twin" / "model.gguf"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("onevison", "no model called 'onevison'; did you mean onevision?"),
        ("zzz", "known are demo, llava, onevision. There is no file"),
        ("./nothing", "no such model file or folder"),
        ("nothing.gguf", "no such model file or folder"),
        ("", "the model name is empty"),
    ],
)
def test_unknown(name: str, told: str) -> None:
    for known in ("onevision", "llava"):
        write_folder(store.models_folder() / known)
    with pytest.raises(ModelError) as e:
        store.resolve(name)
    assert told in str(e.value)


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no model folder"):
        store.resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="is a checkpoint that is not converted; run `aim-local convert"):
        store.resolve(tmp_path)


def test_folder_with_several_models(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        write_model(tmp_path / name)
    with pytest.raises(ModelError, match=r"holds 2 models \(a.gguf, b.gguf\); name one of the files"):
        store.resolve(tmp_path)


@pytest.mark.parametrize("missing", ["model.gguf", "mmproj.gguf"])
def test_folder_that_lost_a_file(tmp_path: Path, missing: str) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / missing).unlink()
    with pytest.raises(ModelError, match="convert the checkpoint again"):
        store.resolve(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"model": {}}}'])
def test_broken_manifest(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / "aim.json").write_text(text)
    with pytest.raises(ModelError, match="cannot be read as a model's manifest"):
        store.resolve(folder)


def test_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / "aim.json").write_text('{"files": {"model": {"path": "../../etc/model.gguf"}}}')
    assert store.resolve(folder).model == folder / "model.gguf"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "demo", "Demo", "x.gguf", "a b"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        store.store_path(name)


def test_store_folder_follows_the_variable(user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.store_path("x") == user_home / "aim-local" / "models" / "x"
    monkeypatch.delenv("AIM_LOCAL_HOME")
    assert user_home in store.models_folder().parents


def test_beside(tmp_path: Path) -> None:
    assert store.beside(tmp_path / "m.gguf", "Q4_K_M") == tmp_path / "m-q4_k_m.gguf"
    assert store.beside(tmp_path, "q4_k_m") == tmp_path.with_name(f"{tmp_path.name}-q4_k_m")


def test_nothing_goes_beside_the_bundled_model() -> None:
    """Guards the package's folder, and that a quantised bundled model is one that can be named."""
    assert store.beside(store.source_of("demo"), "Q8_0") == store.models_folder() / "demo-q8_0"


def test_listing(demo: Path) -> None:
    write_folder(store.models_folder() / "good")
    cut = write_folder(store.models_folder() / "cut") / "model.gguf"
    cut.write_bytes(cut.read_bytes()[:-40])
    (store.models_folder() / "empty").mkdir()
    found = {entry.name: entry for entry in store.list_models()}
    assert list(found) == ["demo", "cut", "empty", "good"]
    good = found["good"]
    assert (good.architecture, good.projector, good.n_params) == ("qwen2", "llava_onevision", 16 * 8 + 8 + 32)
    assert (good.quantisation, good.problem) == ("F16", None)
    assert good.types == {"model": {"F16": 1, "F32": 1}, "mmproj": {"F16": 1}}
    assert found["demo"].bundled
    assert not good.bundled
    assert "lacks" in str(found["cut"].problem)
    assert "no language GGUF" in str(found["empty"].problem)


def test_head_is_read_without_the_vocabulary(tmp_path: Path) -> None:
    path = write_model(tmp_path / "big.gguf", n_vocab=40_000)
    start = time.perf_counter()
    header = read_header(path)
    taken = time.perf_counter() - start
    assert header.metadata["tokenizer.ggml.tokens"].length == 40_000
    assert header.missing_bytes() == 0
    assert taken < 2, f"took {taken:.2f} s"


@pytest.mark.parametrize("keep", [0, 3, 20, 30, 100])
def test_cut_head(tmp_path: Path, keep: int) -> None:
    path = write_model(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="download or convert it again"):
        read_header(path)


def test_not_a_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("this is a text that has nothing to do with GGUF")
    with pytest.raises(ModelError, match="is no GGUF file"):
        read_header(path)
    with pytest.raises(ModelError, match="no such file"):
        read_header(tmp_path / "none.gguf")


def test_importing_the_store_loads_no_native_library() -> None:
    code = "import sys, aim_local.store.names; print([m for m in ('llama_cpp', 'numpy', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
