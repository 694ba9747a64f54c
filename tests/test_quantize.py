"""`quantize`: other weight types of a file or a model folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import convert_models  # noqa: E402
import llama_logits  # noqa: E402
from convert_models import After, tensors  # noqa: E402
from llama_logits import last_logits  # noqa: E402

from aim_local.convert import ConvertError, quantize  # noqa: E402

folders = convert_models.folders
converted = convert_models.converted
llama = llama_logits.llama


def test_quantize_a_file(llama: Any, converted: dict[str, Path], tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    source = converted["llava_onevision"] / "model.gguf"
    result = quantize(source, tmp_path / "small.gguf", "q4_k", progress=lambda *a: calls.append(a), threads=1)
    assert result.type == "q4_k_m"
    assert calls[-1][0] == calls[-1][1] == len(tensors(source))
    assert result.n_bytes < result.n_bytes_before / 3
    assert "F32" in result.types
    assert len(result.types) > 1
    assert np.isfinite(last_logits(llama, result.path, [5, 100, 30])).all()
    assert [p.name for p in tmp_path.iterdir()] == ["small.gguf"]


def test_quantize_a_model_folder(llama: Any, converted: dict[str, Path], tmp_path: Path) -> None:
    result = quantize(converted["llava"], tmp_path / "out", "q8_0", threads=1)
    manifest = json.loads((result.path / "aim.json").read_text())
    assert manifest["files"]["model"]["type"] == "q8_0"
    assert manifest["files"]["model"]["bytes"] == result.model.stat().st_size == result.n_bytes
    assert (result.path / "mmproj.gguf").read_bytes() == (converted["llava"] / "mmproj.gguf").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ConvertError, match=r"is quantised already \(Q8_0\); quantise from an f16 file"):
        quantize(result.path, tmp_path / "again", "q4_k_m")


def test_quantize_interrupted_leaves_nothing(llama: Any, converted: dict[str, Path], tmp_path: Path) -> None:
    for source in (converted["llava"], converted["llava"] / "model.gguf"):
        with pytest.raises(KeyboardInterrupt):
            quantize(source, tmp_path / "out", "q8_0", progress=After(KeyboardInterrupt()), threads=1)
        assert list(tmp_path.iterdir()) == []


def test_quantize_refuses_in_one_line(converted: dict[str, Path], tmp_path: Path) -> None:
    folder = converted["llava"]
    (tmp_path / "text.txt").write_text("not a model")
    (tmp_path / "half").mkdir()
    shutil.copyfile(folder / "model.gguf", tmp_path / "half" / "model.gguf")
    cases: list[tuple[Path, Path, str, str]] = [
        (
            folder / "mmproj.gguf",
            tmp_path / "o",
            "q4_k_m",
            r"is an mmproj .*convert the checkpoint again with vision_type=q8_0",
        ),
        (folder / "model.gguf", tmp_path / "o", "q9", r"type 'q9' is unknown; allowed are q2_k, "),
        (folder / "model.gguf", folder / "model.gguf", "q4_k_m", "is the source itself"),
        (tmp_path / "none.gguf", tmp_path / "o", "q4_k_m", "does not exist; name a language GGUF or a folder"),
        (tmp_path / "text.txt", tmp_path / "o", "q4_k_m", "is not a readable GGUF"),
        (
            tmp_path / "half",
            tmp_path / "o",
            "q4_k_m",
            r"is not a folder that .* it lacks mmproj\.gguf and aim\.json",
        ),
    ]
    for threads in (0, 100_000):
        with pytest.raises(ConvertError, match=f"threads is {threads}; give 1 to 512"):
            quantize(folder / "model.gguf", tmp_path / "o", "q8_0", threads=threads)
    for source, out, kind, line in cases:
        with pytest.raises(ConvertError, match=line) as caught:
            quantize(source, out, kind)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half", "text.txt"]
