"""`plan` with bad input: models it cannot plan for, and the command."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import plan_case
import pytest

from aim_local import VisualTokenConfig, store
from aim_local.cli import _app
from aim_local.engine.model import Model, open_model
from aim_local.errors import ModelError
from aim_local.lab.plan import Request, make_plan
from aim_local.lab.plan.report import remedy
from aim_local.models.text import TextModel

clips = plan_case.clips
model = plan_case.model


def run_cli(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = _app.app(["plan", *map(str, args)], standalone_mode=False)
    out, err = capsys.readouterr()
    return int(code or 0), out, err


def test_text_only_model(tmp_path: Path, clips: list[Path], model: Model) -> None:
    shutil.copy(model.paths.model, tmp_path / "text.gguf")
    with closing(open_model(tmp_path / "text.gguf", weights=False)) as text:
        assert make_plan(text, Request("hello")).outcome.sizes.n_visual == 0
        with pytest.raises(ModelError, match="text-only"):
            make_plan(text, Request("hello", clips))


def test_pruning_on_another_architecture(model: Model, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.text.prune_refusal() == ""  # known without weights
    monkeypatch.setattr(TextModel, "prune_refusal", lambda _: "gemma3 is not among qwen2, llama")
    with pytest.raises(ModelError, match="qwen2, llama"):
        make_plan(model, Request("What?", clips[:1], VisualTokenConfig.paper()))
    assert make_plan(model, Request("What?", clips[:1])).outcome.sizes.tokens == VisualTokenConfig.off()


def test_foreign_tower_is_refused(tmp_path: Path, model: Model, clips: list[Path]) -> None:
    for path in (model.paths.model, model.paths.mmproj):
        assert path
        shutil.copy(path, tmp_path / path.name)
    name = tmp_path / "mmproj.gguf"
    name.write_bytes(name.read_bytes().replace(b"llava_onevision", b"llava_anotheone", 1))
    with closing(open_model(tmp_path, weights=False)) as foreign, pytest.raises(ModelError, match="llava_anotheone"):
        make_plan(foreign, Request("What?", clips[:1]))


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["no-such-model"], 1, "no model called"),
        (["--video", "missing.mp4"], 1, "no such file"),
        (["--tokens", "tiny"], 2, "unknown"),
        (["--frames", "0", "--video", "VIDEO"], 2, "1 or more"),
        (["--type-k", "q3"], 2, "--type-k is"),
        (["--prune", "5,2", "--video", "VIDEO"], 2, "l1"),
        (["--max-tokens", "0"], 2, "--max-tokens is 0"),
        (["-p", " "], 2, "empty"),
        (["--calibrate", "-p", "x"], 2, "--calibrate"),
        (["BROKEN"], 1, "head"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str],
    code: int,
    told: str,
    clips: list[Path],
    model: Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.paths.model.read_bytes()[:3000])
    names = {"VIDEO": str(clips[0]), "BROKEN": str(broken)}
    found, out, err = run_cli(capsys, *(names.get(arg, arg) for arg in args))
    assert (found, out) == (code, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_cli_prints_and_json(clips: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(capsys, "--video", clips[0], "--tokens", "paper", "-p", "What?")
    assert code == 0
    assert "fits: needs about" in out
    assert "per layer" in out
    assert "no estimate of time" in out
    code, out, _ = run_cli(capsys, "--video", clips[0], "--tokens", "paper", "-p", "What?", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["fits"] is True
    assert data["calibration"]["used"] is False
    assert sum(data["memory"]["parts"].values()) == data["memory"]["needed"]


def test_the_hint_has_the_name_that_was_typed(model: Model, tmp_path: Path) -> None:
    """A model of the store by its name, not by its file, which lies deep in a cache; a file by its path."""
    assert remedy(model) == "`aim-local plan --calibrate` measures it"
    assert model.paths.mmproj
    folder = store.models_folder() / "mine"
    for to in (folder, tmp_path / "mine"):
        to.mkdir(parents=True)
        for path in (model.paths.model, model.paths.mmproj):
            shutil.copy(path, to / path.name)
    with closing(open_model("mine", weights=False)) as named:
        assert remedy(named) == "`aim-local plan mine --calibrate` measures it"
    file = tmp_path / "mine" / model.paths.model.name
    with closing(open_model(file, weights=False)) as by_file:
        assert remedy(by_file) == f"`aim-local plan {file} --calibrate` measures it"
