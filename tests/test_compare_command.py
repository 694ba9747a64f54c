"""The command `compare`: bad input is one line; models with other vocabularies."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import compare_case
import gguf
import pytest
from compare_case import FOLDER, other_words

from aim_local.demo import read_clip
from aim_local.lab.compare import matrix
from aim_local.store.gguf_header import array_sha256

suite_file = compare_case.suite_file
here = compare_case.here


def test_bad_input_is_one_line(suite_file: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    (tmp_path / "file").write_text("")
    given = ["--suite", str(suite_file)]
    cases: list[tuple[list[str], int, str]] = [
        ([], 2, "give either --suite FILE or --demo"),
        ([*given, "--demo"], 2, "give either --suite FILE or --demo"),
        (["--suite", str(tmp_path / "none.jsonl")], 1, "none.jsonl: no such file"),
        (["--suite", str(tmp_path / "file")], 1, "file"),
        ([*given, "--tokens", "off,papre"], 2, "setting 'papre' is unknown"),
        ([*given, "--tokens", "off,,paper"], 2, "--tokens: 'off,,paper' has an empty entry"),
        ([*given, "--tokens", "off,off"], 2, "--tokens: 'off,off' names off twice"),
        ([*given, "--types", "q9"], 2, "--types names 'q9', which is unknown; allowed are q2_k"),
        ([*given, "--loads", "type_q=f16"], 2, "load option 'type_q=f16'"),
        ([*given, "--vision-types", "q4_k_m"], 2, "--vision-types names 'q4_k_m', which is unknown; allowed are f32"),
        ([*given, "--reference", "demo/off"], 2, "the reference 'demo/off' is no cell"),
        ([*given, "nosuchmodel"], 1, "no model called 'nosuchmodel'"),
        ([*given, "demo", "demo"], 2, "model demo is given twice"),
        ([*given, "--out", str(tmp_path / "file" / "out")], 1, "cannot be written (Not a directory)"),
        ([*given, "--kld-tokens", "0"], 2, "--kld-tokens is 0; give 1 or more, or --no-kld"),
        ([*given, "--margin", "0"], 2, "--margin is 0; give points of accuracy from 0.001 to 20"),
        ([*given, "--margin", "1e-300"], 2, "--margin is 1e-300; give points of accuracy from 0.001 to 20"),
        ([*given, "--margin", "nan"], 2, "--margin is nan; give points of accuracy from 0.001 to 20"),
        ([*given, "--out", ""], 2, "the name is empty; give one"),
        ([*given, "--margin", "one"], 2, "one"),
        ([*given, "--memory-limit", "much"], 2, "'much' is no size"),
    ]
    for arguments, code, line in cases:
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, ["compare", *arguments, *out])
        assert result.exit_code == code, (arguments, result.stderr)
        assert line in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("here")
def test_different_vocabularies(suite_file: Path, tmp_path: Path) -> None:
    """KL divergence where it is defined, empty where it is not; said once on stderr, and under the table."""
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    arguments = ["demo", str(other_words(tmp_path)), "--suite", str(suite_file), "--limit", "2", "--out"]
    result = CliRunner().invoke(app, ["compare", *arguments, str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    line = "other: no KL divergence, because the vocabulary differs from that of demo / off"
    assert result.stderr.count(line) == 1
    said = "No KL divergence for 2 cells with another vocabulary than the reference's."
    assert said in result.stdout
    assert said in (tmp_path / "out" / "report.md").read_text()
    cells = json.loads((tmp_path / "out" / "report.json").read_text())["cells"]
    found = {(cell["model"], cell["setting"]): cell["divergence"] is not None for cell in cells}
    assert [key for key, has in found.items() if has] == [("demo", "paper")]
    assert all(cell["agreement"]["n"] == 2 for cell in cells if not cell["is_reference"])


@pytest.mark.usefixtures("here")
def test_different_vocabularies_without_kld(suite_file: Path, tmp_path: Path) -> None:
    """The third model has no vision tower: its row says so, the others are there, and the exit code is 1."""
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    other, blind = other_words(tmp_path), tmp_path / "blind" / "small.gguf"
    blind.parent.mkdir()
    shutil.copyfile(FOLDER / "model.gguf", blind)
    arguments = [
        "demo",
        str(other),
        str(blind),
        "--suite",
        str(suite_file),
        "--limit",
        "2",
        "--tokens",
        "off",
        "--no-kld",
    ]
    result = CliRunner().invoke(app, ["compare", *arguments, "--json", "--quiet", "--out", str(tmp_path / "out")])
    found = {cell["model"]: cell for cell in json.loads(result.stdout)["cells"]}
    assert result.exit_code == 1
    assert [found[name]["status"] for name in ("demo", "other", "small")] == ["done", "done", "failed"]
    assert (found["other"]["divergence"], found["other"]["agreement"]["n"]) == (None, 2)
    assert "text-only model" in found["small"]["reason"]
    assert "1 of 3 cells failed (small / off: item" in result.stderr
    assert not list((tmp_path / "out" / "reference" / "logits").iterdir())


def test_vocabulary_digest(tmp_path: Path) -> None:
    demo, other = FOLDER / "model.gguf", other_words(tmp_path) / "model.gguf"
    assert array_sha256(demo, matrix.TOKENS) != array_sha256(other, matrix.TOKENS)
    tokens = gguf.GGUFReader(demo).fields[matrix.TOKENS]
    value = b"".join(part.tobytes() for part in tokens.parts[3:])  # before it: the name's length, the name, the type
    assert array_sha256(demo, matrix.TOKENS) == hashlib.sha256(value).hexdigest()
    assert array_sha256(FOLDER / "model.gguf", "no.such.key") == ""


def test_the_varied_world_is_drawn(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from aim_local.cli._app import app

    out = str(tmp_path / "a")
    arguments = ["compare", "--demo", "--world", "varied", "--n", "2", "--tokens", "off", "--no-kld", "--out", out]
    drawn = CliRunner().invoke(app, arguments)
    assert drawn.exit_code == 0, drawn.output
    assert read_clip(next((tmp_path / "a" / "suite" / "clips").glob("*.mp4"))).shape[1:3] == (168, 168)
    for wrong, told in (
        (["--demo", "--world", "wild"], "allowed are plain, varied"),
        (["--suite", "x.jsonl", "--world", "varied"], "--world is for --demo"),
    ):
        refused = CliRunner().invoke(app, ["compare", *wrong])
        assert (refused.exit_code, told in refused.stderr) == (2, True), refused.stderr
