"""Pictures of kept tokens: what is bright, what is veiled, which token covers which patch, and the files and errors.

Synthetic traces have numbers chosen by hand; the bundled demo model makes the real ones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import aim_local
from aim_local import VisionLLM, VisualTokenConfig
from aim_local.cli import app
from aim_local.demo import held_out, write_clip
from aim_local.drawing import layers, paint, sheet
from aim_local.drawing.colours import RAMP, fogged, ramp
from aim_local.errors import UsageError
from aim_local.lab.explain import explain, page_html, report
from aim_local.lab.explain import needle as needle_module
from aim_local.models.thumbnails import Thumbnails
from aim_local.results import TokenGrid, TokenGroup, Trace

CLIPS = Path(aim_local.__file__).parent / "data" / "clips"
QUESTION = "What appears in the middle?"
PICTURE = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)

# 2 x 3 slots; token 1 covers two slots that do not touch, token 4 is a newline row
OWNERS = np.array([[0, 1, 2], [1, 0, 3]], np.int32)


def small_trace() -> Trace:
    """Two pictures of 3 and 1 tokens... in token numbers: 0..3 in the first, 4 a newline, 5 and 6 in the second."""
    trace = Trace()
    first = TokenGrid(0, 0, "frame", PICTURE[:32], OWNERS, 7, 1.25)
    trace.add([*(TokenGroup(0, 0, s) for s in (0, 1, 2, 5)), TokenGroup(0, -1, -1)], [first])
    second = TokenGrid(1, 0, "image", PICTURE, np.array([[0, 1], [1, 1]], np.int32))
    trace.add([TokenGroup(1, 0, 0), TokenGroup(1, 0, 1)], [second])
    kept = [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [1, 4, 6], []]
    trace.kept = [np.array(tokens, np.int32) for tokens in kept]
    trace.importance = {1: np.array([1e-30, 3.0, 1e-9, 1e-9, 2.0, 0.1, 2.5], np.float32)}
    return trace


@pytest.fixture(scope="module")
def llm() -> Any:
    with VisionLLM.load() as loaded:
        yield loaded


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_pieces_are_numbered_through() -> None:
    """The second piece's owners count from the first token of that piece: 5."""
    assert small_trace().grids[1].owners.tolist() == [[5, 6], [6, 6]]


def slot_box(owners: np.ndarray, row: int, col: int, height: int, width: int, margin: int) -> tuple[slice, slice]:
    """Pixels of a slot, without a margin for outlines; by fractions, not by paint's integer arithmetic."""
    rows, cols = owners.shape
    y = slice(int(np.ceil(row * height / rows)) + margin, int((row + 1) * height / rows) - margin)
    x = slice(int(np.ceil(col * width / cols)) + margin, int((col + 1) * width / cols) - margin)
    return y, x


@pytest.mark.parametrize("size", [(32, 48), (64, 96), (67, 101), (150, 225)])
def test_kept_is_bright_and_dropped_is_veiled(size: tuple[int, int]) -> None:
    grid, kept = small_trace().grids[0], np.zeros(7, np.bool_)
    kept[[1, 3]] = True
    picture, plain = paint.paint(grid, kept, size), paint.scaled(grid.pixels, *size)
    for row, col in np.ndindex(OWNERS.shape):
        box = slot_box(OWNERS, row, col, *size, margin=3)
        assert picture[box].size > 0
        if OWNERS[row, col] in (1, 3):
            assert np.array_equal(picture[box], plain[box])
        else:
            assert np.ptp(picture[box], axis=-1).max() == 0  # no colour
            assert picture[box].std() < 0.35 * plain[box].std()
            assert np.array_equal(picture[box], fogged(plain)[box])


def test_every_pixel_belongs_to_the_slot_that_holds_its_centre() -> None:
    owners = np.arange(12, dtype=np.int32).reshape(3, 4)
    got = paint.owner_map(owners, 31, 45)
    for y, x in ((0, 0), (10, 11), (10, 10), (30, 44), (20, 33), (21, 34)):
        assert got[y, x] == owners[int((y + 0.5) / 31 * 3), int((x + 0.5) / 45 * 4)]
    assert set(np.unique(got)) == set(range(12))


def test_one_token_has_no_line_inside() -> None:
    """Slots of one token that touch are one shape: the outline runs around them, not between them."""
    owner = paint.owner_map(np.array([[0, 0, 1]], np.int32), 30, 90)
    line = paint.edges(owner, 2)
    assert not line[2:28, 2:58].any()
    assert line[:, 58:62].all()
    assert line[:2].all()
    assert line[:, -2:].all()


def test_kept_tokens_have_a_colour_each() -> None:
    """Both patches of token 1 are outlined alike, and otherwise than token 0's."""
    grid = small_trace().grids[0]
    picture = paint.paint(grid, np.ones(7, np.bool_), (120, 180))
    corners = {slot: tuple(picture[slot[0] * 60 + 1, slot[1] * 60 + 30]) for slot in np.ndindex(2, 3)}
    assert corners[0, 1] == corners[1, 0]
    assert corners[0, 0] == corners[1, 1]
    assert len(set(corners.values())) == 4


# --- importance -------------------------------------------------------------------------------------------------------


def test_heat_is_the_place_in_the_ranking() -> None:
    """Scores 1e-30 < 1e-9 = 1e-9 < 0.1 < 2 < 2.5 < 3: places 0, 1.5, 1.5, 3, 4, 5, 6 of 6."""
    levels = layers.heat_levels(small_trace(), 1)
    assert levels * 6 == pytest.approx([0, 6, 1.5, 1.5, 4, 3, 5])


def test_heat_of_tokens_that_are_gone_is_none() -> None:
    trace = small_trace()
    trace.importance[2] = np.array([3.0, 1.0, 2.0], np.float32)  # of tokens 1, 4, 6
    levels = layers.heat_levels(trace, 2)
    assert np.isnan(levels[[0, 2, 3, 5]]).all()
    assert levels[[1, 4, 6]].tolist() == [1.0, 0.0, 0.5]


def test_ramp_rises_in_lightness() -> None:
    """CIE L* of the ramp rises everywhere, in about even steps."""
    rgb = ramp(np.linspace(0, 1, 64)) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = np.diff(lightness)
    assert steps.min() > 0.5 * steps.mean()
    assert steps.max() < 1.6 * steps.mean()
    assert ramp(np.array([0.0, 1.0])).tolist() == [list(RAMP[0]), list(RAMP[-1])]


# --- sheets -----------------------------------------------------------------------------------------------------------


def test_to_image() -> None:
    trace = small_trace()
    for il in range(4):
        image = trace.to_image(il)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
    assert np.array_equal(trace.to_image(0)[60:200], trace.to_image(1)[60:200])  # the same tokens
    assert not np.array_equal(trace.to_image(1), trace.to_image(2))


@pytest.mark.parametrize("il", [-1, 4, 1.5, True])
def test_layers_that_do_not_exist(il: Any) -> None:
    with pytest.raises(UsageError, match=r"layer .* does not exist; this model has layers 0 to 3"):
        small_trace().to_image(il)


def test_text_only_has_no_pictures(llm: VisionLLM) -> None:
    trace = llm.prefill("What is it?").trace
    with pytest.raises(UsageError, match="text only"):
        trace.to_image(0)


def test_tokens_without_grids() -> None:
    trace = Trace(kept=[np.arange(1, dtype=np.int32)], groups=[TokenGroup(0, 0, 0)])
    with pytest.raises(UsageError, match="does not tell which patches"):
        trace.to_image(0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 16, 31, 32, 33, 192])
def test_sheets_wrap_and_stay_narrow(n: int) -> None:
    for bands in (1, 3, 17):
        layout = sheet.plan_layout(n, bands)
        assert 1 <= layout.columns <= n
        assert layout.width <= 1600


def test_many_pictures_get_fewer_rows() -> None:
    """192 frames and 6 rows of pictures would be 1,152 pictures: first and last row stay."""
    trace = small_trace()
    trace.grids = [trace.grids[0]] * 192
    every, chosen = layers.all_bands(trace), layers.default_bands(trace)
    assert len(every) == 4
    assert len(chosen) == 2
    assert (chosen[0], chosen[-1]) == (every[0], every[-1])


def test_caption_counts_newlines_apart() -> None:
    assert sheet.caption(small_trace(), layers.Band(2)) == (
        "Layer 2: 3 of 7 visual tokens (43%), 1 of 1 newline row among them"
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00.0"), (61.25, "1:01.2"), (59.97, "1:00.0"), (600, "10:00.0")])
def test_clock(seconds: float, text: str) -> None:
    assert layers.clock(seconds) == text


# --- what the model's traces say --------------------------------------------------------------------------------------


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


# --- explain ----------------------------------------------------------------------------------------------------------


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


# --- the command ------------------------------------------------------------------------------------------------------


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
        (["--video", "CLIP", "-p", "what?", "--png", "a.png", "--layer", "12"], "layers 0 to 11"),
        (["--video", "CLIP", "-p", "what?", "--png", "a.png", "--layer", "x"], "no whole number"),
        (["--video", "CLIP", "-p", "what?", "--tokens", "most"], "setting 'most' is unknown"),
    ],
)
def test_bad_usage_is_one_line(args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(str(CLIPS / "needle.mp4") if arg == "CLIP" else arg for arg in args))
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


# --- needle -----------------------------------------------------------------------------------------------------------


def test_needle_slots_are_where_the_shape_is(llm: VisionLLM, tmp_path: Path) -> None:
    """Of the drawn frames, the patches with many pixels of the shape's colour are its patches."""
    clip = next(clip for clip in needle_module.needle_clips(8) if not needle_module.needle(clip).moves)
    shape = needle_module.needle(clip)
    trace = llm.prefill(clip.question, [write_clip(clip, tmp_path / "a.mp4")]).trace
    for grid in trace.grids:
        frame = clip.frames(112)[grid.index].astype(int)
        like = (np.abs(frame - np.array(shape.rgb)).max(-1) < 12).reshape(4, 28, 4, 28).mean((1, 3))
        slots = needle_module.covered_slots(clip, grid)
        assert slots.any() == shape.visible(grid.index)
        assert slots[like > 0.1].all()
        assert not like[~slots].sum() > 0.3
    mine, seen = needle_module.needle_tokens(trace, clip, "frames")
    assert mine.sum() == 16 * sum(shape.visible(grid.index) for grid in trace.grids)
    assert seen.sum() == 128


def test_shares_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens 1 and 2 of six are the needle's; of the survivors 1, 4, 6 the newline 4 does not count: 1 of 2."""
    masks = np.array([0, 1, 1, 0, 0, 0, 0], bool), np.array([1, 1, 1, 1, 0, 1, 1], bool)
    monkeypatch.setattr(needle_module, "needle_tokens", lambda trace, clip, kind: masks)
    clip = next(held_out(1))
    assert list(needle_module.shares(small_trace(), clip)) == [(2, k, 1 / 2, 2 / 6, 2.0) for k in ("frames", "patches")]


def test_interval_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, sd 0.1, half width 1.96 * 0.1 / sqrt(3)."""
    row = needle_module._row("grid", 7, "frames", np.array([[0.3, 0.2, 9], [0.4, 0.2, 9], [0.5, 0.2, 9]]))
    assert (row.difference, row.share, row.chance, row.kept) == pytest.approx((0.2, 0.4, 0.2, 9))
    assert (row.low, row.high) == pytest.approx((0.2 - 0.113161, 0.2 + 0.113161), abs=1e-5)


def test_needle_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert needle_module.main(["--n", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["importance"] for row in rows} == {"pagerank", "last_query", "random", "grid"}
    assert {row["layer"] for row in rows} == {7, 8}
    for args, words in ((["--n", "1"], "n is 1"), (["--tokens", "merge-only"], "prunes nothing")):
        assert needle_module.main(args) == 2
        assert words in capsys.readouterr().err
