"""Labels of a plot: every point has one, none covers another or a marker, and a line leads to what is not beside it."""

from __future__ import annotations

import re

from compare_reports import report
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local.lab.compare import plots
from aim_local.lab.compare.charts import charts, names
from aim_local.lab.compare.labels import Box, Label, Named, place

INSIDE = plots.SMALL.inside
POINTS = st.lists(
    st.tuples(st.integers(60, 340), st.integers(12, 250), st.text("abcdefgh /", min_size=1, max_size=40)),
    min_size=1,
    max_size=24,
)


def placed(points: list[tuple[int, int, str]]) -> tuple[list[Named], list[Box], list[Label]]:
    named = [Named(x, y, (text, str(n))) for n, (x, y, text) in enumerate(points, 1)]
    markers = [Box(p.x - 9, p.y - 9, p.x + 9, p.y + 9) for p in named]
    bars = [Box(p.x - 3, p.y - 40, p.x + 3, p.y + 40) for p in named]
    return named, markers, place(named, markers, bars, INSIDE, plots.SMALL.font)


@given(POINTS)
@settings(max_examples=examples(60), deadline=None)
def test_every_point_has_a_label_that_covers_nothing(points: list[tuple[int, int, str]]) -> None:
    named, markers, labels = placed(points)
    assert len(labels) == len(named)
    for i, (point, label) in enumerate(zip(named, labels, strict=True)):
        assert label.text in point.texts
        assert label.box.within(INSIDE)
        # letters are 6 pixels wide at most, on average
        assert label.box.x1 - label.box.x0 >= 6 * len(label.text)
        others = [other.box for other in labels[:i]]
        assert not any(label.box.meets(other) for other in [*markers, *others]), label


@given(POINTS)
@settings(max_examples=examples(60), deadline=None)
def test_a_line_leads_to_what_is_not_beside_its_point(points: list[tuple[int, int, str]]) -> None:
    named, _, labels = placed(points)
    for i, label in enumerate(labels):
        mine = label.box.distance(named[i].x, named[i].y)
        nearest = min(label.box.distance(p.x, p.y) for p in named)
        if label.line is None:
            assert mine == nearest <= 15
        else:
            assert label.line[:2] == (named[i].x, named[i].y)


def test_one_point_has_its_whole_name_beside_it() -> None:
    _, _, (label,) = placed([(100, 100, "demo f16 / off")])
    assert (label.text, label.line) == ("demo f16 / off", None)


def test_all_points_of_all_plots_are_labelled() -> None:
    for chart in charts(report()):
        for svg in filter(None, (chart.svg, chart.on_phone)):
            assert svg.count('class="label"') == svg.count('class="point"') >= 13
    first, *others = charts(report())
    assert re.search(r'class="label"[^>]*>demo f16 / off<', first.svg)
    assert first.on_phone
    assert all(re.fullmatch(r"\d+", text) for c in others for text in re.findall(r'class="label"[^>]*>(.*?)<', c.svg))
    assert not any(chart.on_phone for chart in others)


def test_names_leave_out_what_all_share() -> None:
    assert names(report())["demo f16 / off"] == "demo f16 / off"
