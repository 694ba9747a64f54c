"""Quantising a vision tower: against the gguf package and against `convert`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import compare_case
import gguf
import numpy as np
import pytest
from compare_case import FOLDER, SHORT

from aim_local.convert import ConvertError, quantize_vision
from aim_local.lab.compare import runner
from aim_local.lab.compare.records import Suite

suite_file = compare_case.suite_file
suite = compare_case.suite


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "f32", "bf16"])
def test_quantised_vision_tower(kind: str, tmp_path: Path) -> None:
    """Matrices are the gguf package's own quantisation of the source's values; everything else is as it was."""
    source = FOLDER / "mmproj.gguf"
    result = quantize_vision(source, tmp_path / "v.gguf", kind)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(result.path)
    wanted = gguf.GGMLQuantizationType[kind.upper()]
    assert [t.name for t in after.tensors] == [t.name for t in before.tensors]
    for a, b in zip(before.tensors, after.tensors, strict=True):
        values = gguf.quants.dequantize(a.data, a.tensor_type)
        matrix = a.name.startswith(("v.blk", "mm.")) and len(a.shape) == 2
        assert b.tensor_type == (wanted if matrix else b.tensor_type)
        expected = gguf.quants.dequantize(gguf.quants.quantize(values, b.tensor_type), b.tensor_type)
        np.testing.assert_array_equal(gguf.quants.dequantize(b.data, b.tensor_type), expected)
    kept = {n: f.contents() for n, f in before.fields.items() if not n.startswith("GGUF.") and n != "general.file_type"}
    assert {n: f.contents() for n, f in after.fields.items() if n in kept} == kept
    assert result.n_bytes == result.path.stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["v.gguf"]


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_quantised_vision_tower_is_what_convert_writes(kind: str, tmp_path: Path) -> None:
    """Byte for byte, from the f32 file of the same checkpoint."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from checkpoints import write_onevision

    from aim_local.convert import ConvertConfig, convert

    source = write_onevision(tmp_path / "checkpoint")
    whole = convert(source, tmp_path / "f32", ConvertConfig("f32", "f32", name="tiny")).folder / "mmproj.gguf"
    direct = convert(source, tmp_path / "direct", ConvertConfig("f32", kind, name="tiny")).folder / "mmproj.gguf"
    assert quantize_vision(whole, tmp_path / "v.gguf", kind).path.read_bytes() == direct.read_bytes()


@pytest.mark.thorough
def test_quantised_vision_tower_answers(suite: Suite, tmp_path: Path) -> None:
    report = runner.compare(suite, tmp_path / "out", settings=["off"], vision_types=["f16", "q8_0"], options=SHORT)
    first, second = report.cells
    assert (first.status, second.status) == ("done", "done")
    assert 0 < second.mmproj_bytes < first.mmproj_bytes
    assert second.divergence is not None
    assert 0 < second.divergence.mean < 0.01


def test_vision_quantiser_refuses_in_one_line(tmp_path: Path) -> None:
    source = FOLDER / "mmproj.gguf"
    small = quantize_vision(source, tmp_path / "small.gguf", "q8_0").path
    for given, kind, line in (
        (FOLDER / "model.gguf", "q8_0", "is no mmproj"),
        (source, "q4_k_m", "'q4_k_m' is not a type"),
        (small, "q4_0", r"is quantised already \(Q8_0\)"),
        (tmp_path / "none.gguf", "q8_0", "does not exist"),
    ):
        with pytest.raises(ConvertError, match=line) as caught:
            quantize_vision(given, tmp_path / "o.gguf", kind)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConvertError, match="is the source itself"):
        quantize_vision(small, small, "q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["small.gguf"]


def test_quantize_takes_a_vision_type(tmp_path: Path) -> None:
    """A folder with both types, and an mmproj alone: the same bytes."""
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    shutil.copytree(FOLDER, tmp_path / "model")
    both = ["quantize", str(tmp_path / "model"), str(tmp_path / "both"), "--type", "q4_0", "--vision-type", "q8_0"]
    alone = ["quantize", str(FOLDER / "mmproj.gguf"), str(tmp_path / "alone.gguf"), "--vision-type", "q8_0"]
    for arguments in (both, alone):
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["n_bytes"] > 0
    made, facts = tmp_path / "both" / "mmproj.gguf", json.loads((tmp_path / "both" / "aim.json").read_text())["files"]
    assert made.read_bytes() == (tmp_path / "alone.gguf").read_bytes()
    assert (facts["model"]["type"], facts["mmproj"]["type"]) == ("q4_0", "q8_0")
    assert facts["mmproj"]["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    wrong = ["quantize", str(FOLDER / "model.gguf"), str(tmp_path / "x"), "--type", "q8_0", "--vision-type", "q8_0"]
    result = CliRunner().invoke(app, wrong)
    assert result.exit_code == 1
    assert "the vision type is for a model folder or an mmproj" in result.stderr
