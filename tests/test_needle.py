"""Which tokens show the shape that was asked for, and how many of them are kept."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import explain_case
import numpy as np
import pytest
from explain_case import small_trace
from thorough import few

from aim_local import VisionLLM
from aim_local.config import IMPORTANCE
from aim_local.demo import held_out, write_clip
from aim_local.lab.explain import needle as needle_module
from aim_local.lab.explain.needle_tables import place_rows

llm = explain_case.llm


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
    row = needle_module.make_row("grid", 7, "frames", np.array([[0.3, 0.2, 9], [0.4, 0.2, 9], [0.5, 0.2, 9]]))
    assert (row.difference, row.share, row.chance, row.kept) == pytest.approx((0.2, 0.4, 0.2, 9))
    assert (row.low, row.high) == pytest.approx((0.2 - 0.113161, 0.2 + 0.113161), abs=1e-5)


def test_survival_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens 1, 2 and 6 of six are the needle's: 1 and 6 of them are kept, and two of the six that cover anything."""
    masks = np.array([0, 1, 1, 0, 0, 0, 1], bool), np.array([1, 1, 1, 1, 0, 1, 1], bool)
    monkeypatch.setattr(needle_module, "needle_tokens", lambda trace, clip, kind: masks)
    clip = next(held_out(1))
    assert list(needle_module.survival(small_trace(), clip)) == [(2, k, 2 / 3, 2 / 6) for k in ("frames", "patches")]


def test_places_by_hand() -> None:
    """Means and intervals by part, a part without clips, and the pull to the front: 40 points."""
    places = [
        needle_module.make_place("grid", 7, "frames", part, np.array(values))
        for part, values in (("start", [[0.8, 0.5], [0.9, 0.5], [1.0, 0.5]]), ("end", [[0.5, 0.3]]))
    ]
    assert (places[0].low, places[0].high) == pytest.approx((0.9 - 0.113161, 1.0), abs=1e-5)
    assert place_rows(places) == [
        ["grid", "7", "frames", "90.0% (78.7 to 100.0) [3]", "-", "50.0% (0.0 to 100.0) [1]", "+40.0", "45.0%"]
    ]


@pytest.mark.parametrize("importance", few([IMPORTANCE[-2:], IMPORTANCE], 1), ids=len)
def test_needle_command(
    importance: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(needle_module, "measure", partial(needle_module.measure, rankings=importance))
    assert needle_module.main(["--n", "2", "--json", "--html", str(tmp_path / "needle" / "page.html")]) == 0
    found = json.loads(capsys.readouterr().out)
    for rows in (found["shares"], found["places"]):
        assert {row["importance"] for row in rows} == set(importance)
        assert {row["layer"] for row in rows} == {7, 8}
    clips = needle_module.needle_clips(2)
    parts = [needle_module.needle(clip).part for clip in clips]
    patches = {
        p["part"]: p["n_clips"]
        for p in found["places"]
        if (p["importance"], p["layer"], p["kind"]) == ("grid", 7, "patches")
    }
    assert patches == {part: parts.count(part) for part in set(parts)}
    for clip, part in zip(clips, parts, strict=True):
        assert part in clip.question
    page = (tmp_path / "needle" / "page.html").read_text()
    assert page.count("<tr>") == 2 + len(found["shares"]) + len(
        place_rows([needle_module.Place(**p) for p in found["places"]])
    )
    for args, words in ((["--n", "1"], "n is 1"), (["--tokens", "merge-only"], "prunes nothing")):
        assert needle_module.main(args) == 2
        assert words in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_told_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert needle_module.main(["--n", "6", "--html", str(tmp_path / "file" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
