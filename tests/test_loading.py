"""Models that cannot be loaded or used: each is one clear error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runtime_case
from checkpoints import Shape, write_llava
from runtime_case import F32, one_line, video

from aim_local import GenerateConfig, VisionLLM
from aim_local.convert import ConvertConfig, convert
from aim_local.errors import ClosedError, ModelError

checkpoint, model = runtime_case.checkpoint, runtime_case.model


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    convert(write_llava(folder / "hf", Shape(d_text=32)), folder / "gguf", ConvertConfig())
    return folder / "gguf"


def test_towers_the_wrong_way_round(model: Path) -> None:
    """Told apart by their heads. The same file twice is no pair."""
    with VisionLLM.load(model / "mmproj.gguf", model / "model.gguf", F32) as llm:
        assert llm.model.paths.model == model / "model.gguf"
        assert llm.generate("hello", [video()], generate=GenerateConfig(max_tokens=2)).stats.n_visual > 0
    with pytest.raises(ModelError) as e:
        VisionLLM.load(model / "model.gguf", model / "model.gguf")
    assert "not a mmproj" in one_line(e)


def test_mmproj_of_another_width(model: Path, llava: Path, tmp_path: Path) -> None:
    """Of a file without the mark of its checkpoint, which would be told first."""
    mmproj = tmp_path / "mmproj.gguf"
    mmproj.write_bytes((llava / "mmproj.gguf").read_bytes().replace(b"aim.origin", b"aim_unread"))
    with pytest.raises(ModelError) as e:
        VisionLLM.load(model / "model.gguf", mmproj)
    assert "32" in one_line(e)
    assert "64" in one_line(e)


@pytest.mark.parametrize("name", ["model.gguf", "mmproj.gguf"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated(model: Path, tmp_path: Path, name: str, share: float) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    data = (broken / name).read_bytes()
    (broken / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError) as e:
        VisionLLM.load(broken)
    assert name in one_line(e)


def test_unsupported_architecture(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    data = (tmp_path / "m" / "model.gguf").read_bytes()
    (tmp_path / "m" / "model.gguf").write_bytes(data.replace(b"qwen2", b"qwenX"))
    with pytest.raises(ModelError) as e:
        VisionLLM.load(tmp_path / "m")
    assert "qwenX" in one_line(e)


def test_text_only_model_refuses_media(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "model.gguf", tmp_path / "text.gguf")
    with VisionLLM.load(tmp_path / "text.gguf", config=F32) as llm:
        assert llm.generate("hello", generate=GenerateConfig(max_tokens=4)).stats.n_visual == 0
        with pytest.raises(ModelError) as e:
            llm.generate("what is it?", [video()])
        assert "text-only" in one_line(e)


def test_stock_library(tmp_path: Path) -> None:
    """A library without our symbols: gcc's own libm under the names of ours."""
    from aim_local.native.library import LIB_FOLDER

    for lib in LIB_FOLDER.iterdir():
        shutil.copy(lib, tmp_path / lib.name)
    data = (tmp_path / "libllama.so").read_bytes()
    (tmp_path / "libllama.so").write_bytes(data.replace(b"aim_llama_patch_version", b"aim_llama_patch_versioX"))
    code = (
        "from aim_local.errors import NativeError\n"
        "try:\n import aim_local.native.library\nexcept NativeError as e:\n print(e)"
    )
    environment = {"AIM_LOCAL_LIB": str(tmp_path), "PATH": "/usr/bin"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "stock libllama" in out.stdout
    assert out.stdout.count("\n") == 1


def test_closed_model_says_so(model: Path) -> None:
    llm = VisionLLM.load(model, config=F32)
    llm.close()
    llm.close()
    with pytest.raises(ClosedError):
        llm.prefill("hello")
