"""One model's costs; ratios paired by round."""

from __future__ import annotations

import os
from dataclasses import replace

import bench_case
import numpy as np
import pytest
from bench_case import measured, silent

from aim_local import LoadConfig, VisualTokenConfig
from aim_local.errors import ContextError, MediaError
from aim_local.lab.bench.cache import synthetic_clip
from aim_local.lab.bench.grid import Arm, Grid, Record, measure
from aim_local.lab.bench.report import cells, notes, table
from aim_local.lab.bench.session import PROMPT, SKIPPED, Measured, Session
from aim_local.lab.measure import Spread, paired_ratio, peak_rss_bytes, reset_peak_rss
from aim_local.models.prompt import RAW_MARKER
from aim_local.settings import parse_setting
from aim_local.store.names import ModelPaths

shape = bench_case.shape
paths = bench_case.paths
clip_is_there = bench_case.clip_is_there


# --- one model -------------------------------------------------------------------------------------------------------


def test_session_counts_and_stages(paths: ModelPaths) -> None:
    clip = synthetic_clip(8)
    with Session(paths, LoadConfig(), video=clip) as session:
        for setting in ("off", "paper", "budget=0.85", "ward:keep=0.4:window=4"):
            tokens = parse_setting(setting)
            counts, measured = session.count(6, tokens), session.run(6, tokens, n_decode=3)
            assert (counts.n_text, counts.n_visual, counts.n_visual_full) == (
                measured.n_text,
                measured.n_visual,
                measured.n_visual_full,
            )
            assert measured.n_prompt == counts.n_text + counts.n_visual
            parts = sum(measured.ms[s] for s in ("decode_video", "preprocess", "vision", "merge", "prefill"))
            assert 0 < parts <= measured.ms["first_token"] + 0.01
            assert measured.ms["decode"] > 0
            assert 0 < measured.ms["prefill_cpu"] < 2 * os.cpu_count() * measured.ms["prefill"]  # type: ignore[operator]
            assert measured.ms["importance"] < measured.ms["prefill"]
        with pytest.raises(MediaError, match=r"120 frames, 500"):
            session.run(500, VisualTokenConfig.off())


def test_skipping_the_tower_changes_no_count(paths: ModelPaths) -> None:
    clip = synthetic_clip(8)
    with Session(paths, LoadConfig(), video=clip) as whole, Session(paths, LoadConfig(), skip_vision=True) as alone:
        for setting in ("off", "paper", "fast", "ward:window=2"):
            tokens = parse_setting(setting)
            a, b = whole.run(5, tokens, n_decode=2), alone.run(5, tokens, n_decode=2)
            assert replace(a, ms={}, peak_rss=0) == replace(b, ms={}, peak_rss=0)
            assert set(a.ms) - set(b.ms) == set(SKIPPED)
        full, given = alone.run(5, VisualTokenConfig.off(), n_decode=2), alone.run_tokens(5, n_decode=2)
        assert replace(full, ms={}, peak_rss=0, kv_bytes=0) == replace(given, ms={}, peak_rss=0, kv_bytes=0)


def test_decode_costs_are_those_of_given_tokens(paths: ModelPaths) -> None:
    """Whatever the random weights answer, an end of turn among it too, so many tokens are decoded."""
    with Session(paths, LoadConfig(), skip_vision=True) as session:
        before = session.run(2, VisualTokenConfig.off(), n_decode=1).kv_bytes
        assert session.run(2, VisualTokenConfig.off(), n_decode=400).kv_bytes > before
    assert len(PROMPT.replace(RAW_MARKER, "")) == 100


def test_peak_memory_begins_again() -> None:
    if not reset_peak_rss():
        pytest.skip("this system keeps one peak for the whole process")
    before = peak_rss_bytes()
    block = np.ones(1 << 24)  # 128 MiB
    with_block = peak_rss_bytes()
    assert with_block - before > 100 << 20
    del block
    reset_peak_rss()
    assert with_block - peak_rss_bytes() > 100 << 20


# --- rounds and ratios -----------------------------------------------------------------------------------------------


def test_paired_ratio_by_hand() -> None:
    """The machine is three times slower in round 2: medians of the sides would say 4 / 1, the pairs say 2."""
    assert paired_ratio([2, 12, 4], [1, 6, 1]) == Spread(2, 2, 4, 3)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1, 2], [1])
    assert Spread.of([10, 8, 12]).width == pytest.approx(0.4)


def test_arms_take_turns() -> None:
    order: list[str] = []

    def arm(name: str) -> Arm:
        return Arm(name, lambda n: (order.append(f"{name}{n}"), measured(1.0))[1])

    grid = measure([8, 32], [arm("a"), arm("b")], 2, silent)
    assert order == ["a8", "b8"] * 3 + ["a32", "b32"] * 3
    assert [r.round for r in grid.records] == [0, 0, 1, 1, 2, 2] * 2
    assert len(grid.of(8, "a")) == 2  # without the warm-up
    assert [r.round for r in measure([8], [arm("a")], 2, silent, warm_up=0).records] == [1, 2]
    assert [r.round for r in measure([8], [arm("a")], 1, silent, warm_up=2).records] == [0, 0, 1]


@pytest.mark.parametrize(
    ("n", "told"), [(1, "4 frames: 1 round follows, about"), (2, "4 frames: 2 rounds follow, about")]
)
def test_rounds_are_counted_in_words(n: int, told: str) -> None:
    said: list[str] = []
    measure([4], [Arm("off", lambda _: measured(1.0))], n, said.append)
    assert any(line.startswith(told) for line in said), said


def test_an_arm_that_fails_leaves_the_others() -> None:
    def fail(n_frames: int) -> Measured:
        if n_frames == 32:
            raise ContextError("the prompt needs more")
        return measured(2.0)

    grid = measure([8, 32], [Arm("off", fail), Arm("paper", lambda n: measured(1.0))], 2, silent)
    assert grid.failures == {(32, "off"): "the prompt needs more"}
    found = cells(grid)
    assert [(c.n_frames, c.arm, set(c.ratios)) for c in found] == [
        (8, "off", set()),
        (8, "paper", {"prefill", "decode"}),
        (32, "paper", set()),
    ]
    assert "32 frames, off: not measured: the prompt needs more" in notes(grid, found)


def filled(stock_ms: list[float], own_ms: list[float]) -> Grid:
    grid = Grid(["stock", "paper"], [8])
    for i, (a, b) in enumerate(zip(stock_ms, own_ms, strict=True)):
        extra = {"decode at 50": 3.0}
        grid.records.append(Record(i, 8, "stock", measured(a, decode=4.0, **extra)))
        grid.records.append(Record(i, 8, "paper", measured(b, decode=2.0, n_prompt=50, importance=b / 2)))
    return grid


def test_report_by_hand() -> None:
    grid = filled([999, 20, 60, 30], [1, 10, 20, 10])  # the first is the warm-up
    reference, paper = cells(grid)
    assert reference.ms["prefill"] == Spread(30, 20, 60, 3)
    assert paper.ratios["prefill"] == Spread(3, 2, 3, 3)
    assert paper.ratios["decode"] == Spread(2, 2, 2, 3)
    assert paper.ratios["decode at one length"] == Spread(1.5, 1.5, 1.5, 3)
    assert paper.prefill_tps.median == pytest.approx(50 / 0.010)
    assert paper.gflops.median == pytest.approx(2 / 0.005)  # 2 GFLOP in the half that is not scoring
    text = [" | ".join(row) for row in table([reference, paper], "stock")]
    assert any("prefill: stock / this" in line and "3.00 (2.00..3.00)" in line for line in text)


@pytest.mark.parametrize(("times", "is_busy"), [([100, 107, 93], False), ([100, 109, 92], True)])
def test_a_busy_machine_is_told(times: list[float], is_busy: bool) -> None:
    grid = filled([1, *times], [1, 1, 1, 1])
    assert any("busy" in note for note in notes(grid, cells(grid))) == is_busy
