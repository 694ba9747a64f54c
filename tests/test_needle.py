"""Which tokens show the shape that was asked for, and how many of them are kept."""

from __future__ import annotations

import json
from pathlib import Path

import explain_case
import numpy as np
import pytest
from explain_case import small_trace

from aim_local import VisionLLM
from aim_local.demo import held_out, write_clip
from aim_local.lab.explain import needle as needle_module

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


def test_needle_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert needle_module.main(["--n", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["importance"] for row in rows} == {"pagerank", "last_query", "random", "grid"}
    assert {row["layer"] for row in rows} == {7, 8}
    for args, words in ((["--n", "1"], "n is 1"), (["--tokens", "merge-only"], "prunes nothing")):
        assert needle_module.main(args) == 2
        assert words in capsys.readouterr().err
