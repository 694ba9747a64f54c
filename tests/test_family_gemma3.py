"""Gemma 3 against transformers, from the GGUF pair that `convert` has llama.cpp's converter write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_case import Case, check, open_case
from family_checkpoints import picture
from family_prompts import ASK, PROMPTS, drawn
from family_reduced import check_merged_only
from family_stock import check_off_is_stock
from family_use import check_cached, check_chat, check_explain, check_pixels, check_plan, check_without_vision
from thorough import few
from typer.testing import CliRunner

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.cli._app import app
from aim_local.config import MERGE_AUTO
from aim_local.demo import held_out, write_clip
from aim_local.engine.plan import default_tokens
from aim_local.errors import ModelError, UsageError
from aim_local.media import MediaShape

MERGED = VisualTokenConfig(0.5, prune_layers=None)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    found = open_case("gemma3", tmp_path_factory)
    yield found
    found.llm.close()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_like_transformers(case: Case, prompt: str) -> None:
    check(case, *PROMPTS[prompt])


@pytest.mark.parametrize("seed", few(range(12), 2))
def test_merged(case: Case, seed: int) -> None:
    check_merged_only(case, *drawn(seed, case.llm.model.text.n_layer, prunes=False))


def test_off_is_stock(case: Case) -> None:
    check_off_is_stock(case, picture(112, 112), whole=True)


def test_pixels(case: Case) -> None:
    check_pixels(case)


def test_plan(case: Case, tmp_path: Path) -> None:
    check_plan(case, MERGED, tmp_path)


def test_without_vision(case: Case) -> None:
    check_without_vision(case)


def test_explain(case: Case, tmp_path: Path) -> None:
    check_explain(case, MERGED, tmp_path)


def test_saved_chat(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_chat(case, MERGED, tmp_path, monkeypatch)


def test_cached(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_cached(case, tmp_path, monkeypatch)


@pytest.mark.parametrize("asked", [VisualTokenConfig.paper(), VisualTokenConfig.auto()])
def test_what_needs_stages_is_refused(case: Case, asked: VisualTokenConfig) -> None:
    """Its sliding-window layers are not staged: rows can be merged, and neither dropped between layers nor weighed."""
    with pytest.raises(ModelError, match=r"gemma3.*use (prune_layers=None|weigh=.equal.)") as error:
        case.llm.prefill(ASK, [picture(112, 112)], asked)
    assert "\n" not in str(error.value)
    assert str(error.value).count("cannot be") == 1  # not once of the model and once of its architecture


def test_default_is_merging(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [MediaShape("video", 2, 64, 64, "", "", (0.0, 1.0), (0, 1), 2.0)]
    assert default_tokens(case.llm.model, shapes) == VisualTokenConfig.off()  # 16 tokens a frame here
    monkeypatch.setattr(type(case.llm.model.tower), "reduces_by_default", True)
    found = default_tokens(case.llm.model, shapes)
    assert (found.merge_by, found.merge_retain, found.weigh, found.prunes) == ("ward", MERGE_AUTO, "equal", False)


@pytest.mark.parametrize("command", ["chat", "plan", "explain"])
def test_a_change_of_the_default_falls_back_as_the_default_does(case: Case, command: str, tmp_path: Path) -> None:
    """Nobody asked for weights: only an explicit --weigh size is refused."""
    clip, paths = write_clip(next(iter(held_out(1))), tmp_path / "0.mp4"), case.llm.model.paths
    call = [command, str(paths.model), "--mmproj", str(paths.mmproj), "--video", str(clip), "-p", "What?", "--json"]
    call += ["--frames", "2", "--max-tokens", "1"]
    for asked in (["--keep", "0.5"], ["--merge", "similarity"], ["--keep", "0.25", "--merge", "ward"]):
        found = CliRunner().invoke(app, [*call, *asked])
        assert found.exit_code == 0, found.output
    found = CliRunner().invoke(app, [*call, "--keep", "0.5", "--weigh", "size"])
    assert found.exit_code == 1
    assert "cannot be weighed by size" in found.output


def test_a_picture_that_fits_no_batch_is_refused(case: Case) -> None:
    paths = case.llm.model.paths
    with pytest.raises(UsageError, match=r"n_ubatch is 8, .* give at least 16"):
        VisionLLM.load(paths.model, paths.mmproj, config=LoadConfig(n_ubatch=8))
