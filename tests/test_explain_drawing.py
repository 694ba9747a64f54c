"""Pictures of kept tokens: where patches lie, heat, sheets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import explain_case
import numpy as np
import pytest
from explain_case import OWNERS, small_trace

from aim_local import VisionLLM
from aim_local.drawing import layers, paint, sheet
from aim_local.drawing.colours import RAMP, fogged, ramp
from aim_local.errors import UsageError
from aim_local.models.pieces import TokenGroup
from aim_local.results import Trace

llm = explain_case.llm


# --- geometry --------------------------------------------------------------------------------------------------------


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


def test_a_token_has_one_colour_in_every_picture() -> None:
    """Token 4 of a window lies in two frames, in parts: its colour goes by the token, not by the picture."""
    first = replace(small_trace().grids[0], owners=np.array([[3, 3, 4], [5, 4, 3]], np.int32))
    second = replace(first, frame=1, owners=np.array([[4, 6, 6], [6, 6, 4]], np.int32))
    seen: dict[int, set[tuple[int, ...]]] = {}
    for grid in (first, second):
        picture = paint.paint(grid, np.ones(7, np.bool_), (120, 180))
        for row, col in np.ndindex(2, 3):
            corner = tuple(picture[row * 60 + 1, col * 60 + 30])  # at a picture's border or below another token
            if row == 0 or grid.owners[0, col] != grid.owners[1, col]:
                seen.setdefault(int(grid.owners[row, col]), set()).add(corner)
    assert sorted(seen) == [3, 4, 5, 6]
    assert [len(colours) for colours in seen.values()] == [1] * 4
    assert len(set.union(*seen.values())) == 4


# --- importance ------------------------------------------------------------------------------------------------------


def test_heat_is_the_place_in_the_ranking() -> None:
    """Scores 1e-30 < 1e-9 = 1e-9 < 0.1 < 2 < 2.5 < 3: places 0, 1.5, 1.5, 3, 4, 5, 6 of 6."""
    levels = layers.heat_levels(small_trace(), 1)
    assert levels * 6 == pytest.approx([0, 6, 1.5, 1.5, 4, 3, 5])


def test_heat_of_tokens_that_are_gone_is_none() -> None:
    trace = small_trace()
    scores = {**trace.importance, 2: np.array([3.0, 1.0, 2.0], np.float32)}  # of tokens 1, 4, 6
    trace = replace(trace, importance=scores)
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


# --- sheets ----------------------------------------------------------------------------------------------------------


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
    with pytest.raises(
        UsageError, match=r"layer .* does not exist; this model has layers 0 to 3|il is .*; give a whole number"
    ):
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
    trace = replace(small_trace(), grids=[small_trace().grids[0]] * 192)
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
