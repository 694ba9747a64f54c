"""`explain` on the bundled model: grids, the report, the page, the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import explain_case
import numpy as np
import pytest
from explain_case import CLIPS, QUESTION
from PIL import Image
from typer.testing import CliRunner

from aim_local import VisionLLM, VisualTokenConfig
from aim_local.cli import app
from aim_local.drawing import layers, paint
from aim_local.errors import UsageError
from aim_local.lab.explain import explain, page_html, report
from aim_local.models.thumbnails import Thumbnails
from aim_local.settings import parse_setting

llm = explain_case.llm


# --- what the model's traces say -------------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [1.0, 0.5, 0.25])
def test_video_grids_partition_the_tokens(llm: VisionLLM, retain: float) -> None:
    """Every slot has one token of its own frame, the slot a token is named for is its own, the newline has none."""
    trace = llm.prefill(QUESTION, [CLIPS / "needle.mp4"], VisualTokenConfig(retain, prune_layers=None)).trace
    assert [grid.index for grid in trace.grids] == [0, 2, 4, 6, 8, 10, 12, 15]
    assert [grid.owners.shape for grid in trace.grids] == [(4, 4)] * 8
    covered = np.concatenate([layers.tokens_of(grid) for grid in trace.grids])
    assert sorted(covered) == list(range(len(trace.groups) - 1))
    assert trace.groups[-1].slot == -1
    for token in covered:
        group = trace.groups[token]
        assert trace.grids[group.frame].owners.ravel()[group.slot] == token


def test_image_grids_partition_the_tokens(llm: VisionLLM, tmp_path: Path) -> None:
    """Base view 8 x 8; the tile grid has the picture's shape; newlines, one per grid row, cover nothing."""
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (100, 190, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    trace = llm.prefill("Is it red?", [tmp_path / "a.png"], VisualTokenConfig(0.25, prune_layers=None)).trace
    base, tiles = trace.grids
    assert (base.name, tiles.name) == ("base view", "tile grid")
    assert base.owners.shape == (8, 8)
    newlines = {i for i, group in enumerate(trace.groups) if group.slot < 0}
    assert len(newlines) == tiles.owners.shape[0]
    assert {*base.owners.ravel(), *tiles.owners.ravel()} == set(range(len(trace.groups))) - newlines
    for i, group in enumerate(trace.groups):
        if group.slot >= 0:
            assert trace.grids[group.frame].owners.ravel()[group.slot] == i
    for grid in trace.grids:
        assert grid.pixels.shape[1] / grid.pixels.shape[0] == pytest.approx(1.9, rel=0.12)


@pytest.mark.parametrize("setting", ["ward:keep=0.25", "ward:keep=0.25:window=3"])
def test_grids_of_ward_are_its_groups(llm: VisionLLM, setting: str) -> None:
    """Groups of any form, in windows over frames too: each slot has one token of its window, each token its slots."""
    trace = llm.prefill(QUESTION, [CLIPS / "needle.mp4"], parse_setting(f"{setting}:prune=off")).trace
    window = 3 if "window" in setting else 1
    covered = np.concatenate([grid.owners.ravel() for grid in trace.grids])
    assert sorted(set(covered.tolist())) == list(range(len(trace.groups) - 1))
    for token, group in enumerate(trace.groups[:-1]):
        assert trace.grids[group.frame].owners.ravel()[group.slot] == token
        frames = {i for i, grid in enumerate(trace.grids) if token in grid.owners}
        assert {frame // window for frame in frames} == {group.frame // window}
    squares = [grid.owners.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4) for grid in trace.grids]
    assert any(len(set(square)) > 1 for squares_of in squares for square in squares_of.tolist()), "no mere squares"
    assert trace.to_image(0).shape[2] == 3


def test_several_clips_are_numbered_through(llm: VisionLLM) -> None:
    """The second clip's tokens come behind all of the first's, its newline row among them."""
    first = llm.prefill(QUESTION, [CLIPS / "needle.mp4"], VisualTokenConfig(prune_layers=None)).trace
    n, clips = len(first.groups), [CLIPS / "needle.mp4"] * 2
    both = llm.prefill(QUESTION, clips, VisualTokenConfig(prune_layers=None)).trace
    assert [group.media for group in both.groups] == [0] * n + [1] * n
    assert [grid.media for grid in both.grids] == [0] * 8 + [1] * 8
    for alone, again in zip([*first.grids] * 2, both.grids, strict=True):
        assert np.array_equal(again.owners, alone.owners + again.media * n)


def test_the_grid_lies_on_the_right_pixels(llm: VisionLLM) -> None:
    """A white quarter of a frame, merged to two tokens: one covers the quarter, one the rest."""
    frame = np.full((112, 112, 3), 10, np.uint8)
    frame[56:, :56] = 250
    trace = llm.prefill(QUESTION, [np.stack([frame] * 2)], VisualTokenConfig(1.0, prune_layers=None)).trace
    grid = trace.grids[0]
    assert np.array_equal(grid.pixels, frame)
    assert np.isnan(grid.timestamp)
    means = [grid.pixels[paint.owner_map(grid.owners, 112, 112) == token].mean() for token in range(16)]
    assert means == [10] * 8 + [250, 250, 10, 10] * 2


def test_thumbnails_show_what_patches_cover() -> None:
    """27 patches of 14 px see 378 of 384 px; a wide frame's thumbnail is wide again, and a copy."""
    tile = np.zeros((384, 384, 3), np.uint8)
    tile[378:], tile[:, 378:] = 255, 255
    thumb = Thumbnails(378).whole(tile, 90, 160)
    assert thumb.shape == (126, 224, 3)
    assert thumb.max() == 0
    small = np.zeros((112, 112, 3), np.uint8)
    assert not np.shares_memory(Thumbnails(112).whole(small, 1, 1), small)


def test_thumbnails_are_small() -> None:
    """192 frames of any size stay under 30 MB."""
    assert 192 * Thumbnails(378).whole(np.zeros((384, 384, 3), np.uint8), 1, 1).nbytes < 30e6


# --- explain ---------------------------------------------------------------------------------------------------------


def test_nothing_asked_is_the_papers_setting(llm: VisionLLM) -> None:
    found = explain(llm, QUESTION, [CLIPS / "needle.mp4"])
    assert found.tokens == VisualTokenConfig.paper()
    assert "no setting was asked" in found.assumed
    assert found.answer.stats.n_visual == 33
    assert [len(kept) for kept in found.trace.kept] == [33] * 7 + [22, 11, 0, 0, 0]


def test_report_holds_the_kept_sets(llm: VisionLLM) -> None:
    found = explain(llm, QUESTION, [CLIPS / "needle.mp4"], VisualTokenConfig.fast())
    data = json.loads(json.dumps(report(found), allow_nan=False))
    assert [(s["first"], s["last"], len(s["kept"])) for s in data["stages"]] == [
        (0, 6, 17),
        (7, 7, 11),
        (8, 8, 5),
        (9, 11, 0),
    ]
    for stage in data["stages"]:
        assert stage["kept"] == found.trace.kept[stage["first"]].tolist()
    assert data["newlines"] == [16]
    assert len(data["pictures"]) == 8
    assert all(len(p["owners"]) == p["rows"] * p["cols"] for p in data["pictures"])
    assert data["assumed"] == ""
    assert list(data["importance"]) == ["6", "7"]


def test_a_window_is_told_and_drawn(llm: VisionLLM) -> None:
    """A token over two frames stands in both pictures of the page's data, under one number."""
    found = explain(llm, QUESTION, [CLIPS / "needle.mp4"], parse_setting("ward:keep=0.25:window=4"))
    data = report(found)
    assert data["setting"].startswith("33 of 129 visual tokens after merging by ward in windows of 4 frames; pruned")
    tokens = [token for picture in data["pictures"] for token in picture["tokens"]]
    assert len(tokens) > len(set(tokens)) == 32
    assert "window" not in report(explain(llm, QUESTION, [CLIPS / "needle.mp4"], VisualTokenConfig.ward()))["setting"]
    assert len(page_html(found)) > 10_000


def test_no_media(llm: VisionLLM) -> None:
    with pytest.raises(UsageError, match="nothing to explain"):
        explain(llm, "what?", [])


def test_the_page_is_self_contained(llm: VisionLLM, tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes((CLIPS / "needle.mp4").read_bytes())
    text = page_html(explain(llm, "</script><b>& is it?", [clip]))
    assert not re.search(
        r"""(?:src|href)\s*=\s*["']?(?!data:)[^"'>\s]""", re.sub(r"<script.*?</script>", "", text, flags=re.S)
    )
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", text)
    assert "<b>& is" not in text
    assert "<noscript>" in text
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", text)
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert len(data["pictures"]) == 8
    assert all(p["src"].startswith("data:image/jpeg;base64,") for p in data["pictures"])
    assert [len(s["kept"]) for s in data["stages"]] == [33, 22, 11, 0]


# --- the command -----------------------------------------------------------------------------------------------------


def run(*args: str | Path) -> Any:
    return CliRunner().invoke(app, ["explain", *map(str, args)])


def test_command_writes_both_files(tmp_path: Path) -> None:
    result = run("--video", CLIPS / "needle.mp4", "-p", QUESTION, "--out", tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    assert "red cross" in result.stdout
    assert "no setting was asked" in result.stdout
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["explain.html", "explain.png"]
    with Image.open(folder / "explain.png") as image:
        assert image.width > 1000


def test_command_json_alone_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--video", CLIPS / "needle.mp4", "-p", QUESTION, "--tokens", "prune-only", "--json")
    data = json.loads(result.stdout)
    assert data["n_visual"] == 129
    assert data["files"] == {}
    assert list(tmp_path.iterdir()) == []


def test_command_draws_one_layer(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    result = run("--video", CLIPS / "needle.mp4", "-p", QUESTION, "--png", file, "--layer", "7", "--json")
    assert json.loads(result.stdout)["files"] == {"png": str(file)}
    with Image.open(file) as image:
        one = image.height
    run("--video", CLIPS / "needle.mp4", "-p", QUESTION, "--png", file, "--layer", "7", "--layer", "8")
    with Image.open(file) as image:
        assert image.height > one


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--video", "CLIP"], "the question is missing"),
        (["-p", "what?"], "nothing to explain"),
        (["--video", "CLIP", "-p", " "], "the question is missing"),
        (["--video", "CLIP", "-p", "what?", "--out", "o", "--png", "a.png"], "--out names a folder for both"),
        (["--video", "CLIP", "-p", "what?", "--png", "a.jpg"], "must end in .png"),
        (["--video", "CLIP", "-p", "what?", "--html", "none/a.html"], "does not exist; make it first"),
        (["--video", "CLIP", "-p", "what?", "--out", "CLIP"], "is a file; --out takes a folder"),
        (["--video", "CLIP", "-p", "what?", "--out", "CLIP/o"], "is a file; --out takes a folder"),
        (["--video", "CLIP", "-p", "what?", "--out", "o/p", "--layer", "12"], "layers 0 to 11"),
        (["--video", "CLIP", "-p", "what?", "--png", "a.png", "--layer", "12"], "layers 0 to 11"),
        (["--video", "CLIP", "-p", "what?", "--png", "a.png", "--layer", "x"], "no whole number"),
        (["--video", "CLIP", "-p", "what?", "--tokens", "most"], "setting 'most' is unknown"),
    ],
)
def test_bad_usage_is_one_line(args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(arg.replace("CLIP", str(CLIPS / "needle.mp4")) for arg in args))
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []
