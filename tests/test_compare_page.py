"""How a comparison is shown: the front is the front, nothing is hidden or obeyed, and the words follow the figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import pytest
from compare_reports import COMMAND, MODELS, REASON, SETTINGS, N, report
from hypothesis import example, given
from hypothesis import strategies as st

from aim_local.lab.compare import plots, sentences
from aim_local.lab.compare.axes import Measure, linear_ticks, log_ticks, scale
from aim_local.lab.compare.charts import charts
from aim_local.lab.compare.figures import columns, kld, p_value, percent, size
from aim_local.lab.compare.markdown import TERMINAL_WIDTH, markdown, terminal_notes, terminal_rows
from aim_local.lab.compare.page import html, write_html
from aim_local.lab.compare.pareto import front
from aim_local.lab.compare.records import CellSummary, Report
from aim_local.lab.compare.sentences import reading, summary


class Found(HTMLParser):
    """Rows of the first table, as texts; tags met; the data block."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self.data = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = tag if tag in ("title", "script") else "cell" if tag in ("td", "th") else self._open
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "title":
            self.titles.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "title", "script"):
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "cell":
            self.rows[-1][-1] += data + " "
        elif self._open == "title":
            self.titles[-1] += data
        elif self._open == "script" and not self.data:
            self.data = data


# the Pareto front


def test_front_by_hand() -> None:
    # FLOPs (less is better), accuracy (more): b is beaten by a, e equals d, the one without a figure is left out
    points = [(0.2, 0.9), (0.3, 0.8), (0.1, 0.5), (1.0, 0.99), (1.0, 0.99), None]
    assert front(points, "less", "more") == [2, 0, 3, 4]
    assert front(points, "less", "less") == [2]
    assert front([], "less", "more") == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    best = front(points, "less", "more")
    for i, (x, y) in enumerate(points):
        beaten = any(a <= x and b >= y and (a < x or b > y) for a, b in points)
        assert (i in best) == (not beaten)
    assert [points[i][0] for i in best] == sorted(points[i][0] for i in best)


def test_front_refuses_nan() -> None:
    with pytest.raises(ValueError, match="no place"):
        front([(float("nan"), 1.0)], "less", "more")


# axes

_KLD = Measure("KLD", "less", str, scale="auto", zero=1e-6)


def test_zero_has_a_place_on_a_logarithmic_axis() -> None:
    found = scale([0.0, 3e-8, 1e-3, 0.5], _KLD, 200, 10)
    assert found.log
    assert found.band
    assert found.ticks[0] == 0
    assert found.at(0.0) == found.at(3e-8) > found.at(1e-3) > found.at(0.02) > found.at(0.5) > 10
    # equal ratios are equal distances
    assert found.at(1e-2) - found.at(1e-1) == pytest.approx(found.at(1e-3) - found.at(1e-2))


def test_near_values_stay_linear_and_one_value_has_an_axis() -> None:
    assert not scale([0.1, 0.2], _KLD, 200, 10).log
    for values in ([0.0], [0.3], [0.0, 0.0]):
        found = scale(values, _KLD, 200, 10)
        assert 10 <= found.at(values[0]) <= 200
        assert found.ticks


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20))
def test_every_value_and_tick_is_inside(values: list[float]) -> None:
    found = scale(values, _KLD, 50, 350)
    assert all(50 - 1e-6 <= found.at(value) <= 350 + 1e-6 for value in [*values, *found.ticks])
    assert 1 <= len(found.ticks) <= 9


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20), st.sampled_from(["linear", "auto"]))
@example([-(2.0**63), 0.0], "linear")
@example([-3e18, -1.0], "auto")
@example([5e-324, 0.0], "linear")
def test_numbers_that_nothing_can_have_are_drawn(values: list[float], kind: Literal["linear", "auto"]) -> None:
    found = scale(values, Measure("size", "less", str, scale=kind), 50, 350)
    assert all(50 - 1e-6 <= found.at(value) <= 350 + 1e-6 for value in [*values, *found.ticks])


@given(st.floats(1e3, 1e12), st.floats(1, 1.05), st.floats(1, 3))
def test_ticks_of_sizes_read_apart(least: float, near: float, far: float) -> None:
    found = scale([least, least * near, least * far], Measure("RSS", "less", size), 50, 350)
    texts = [size(tick) for tick in found.ticks]
    assert len(set(texts)) == len(texts) > 0


def test_ticks_are_round() -> None:
    assert linear_ticks(0, 1.03) == (0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert linear_ticks(0.76, 1.0) == (0.8, 0.85, 0.9, 0.95, 1.0)
    assert log_ticks(0.002, 0.6) == (0.003, 0.01, 0.03, 0.1, 0.3)


# plots


def test_each_plot_has_its_cells_and_its_front() -> None:
    drawn = {chart.title: Found(chart.svg) for chart in charts(report())}
    assert len(drawn) == 6
    flops = drawn["Accuracy over FLOPs"]
    assert len(flops.titles) == 1 + 14  # the plot's own, and every cell but the failed one
    assert len(drawn["KL divergence over FLOPs"].titles) == 1 + 13  # one has no divergence
    svg = next(chart.svg for chart in charts(report()) if chart.title == "Accuracy over FLOPs")
    assert svg.count('class="ring"') == 3  # fast, paper and off of the first model, by hand
    assert flops.titles[1].startswith("demo f16 / off: 99.5% right (97.2 to 99.9), KLD 0, FLOPs 100.0%")


def test_a_partial_cell_is_never_on_the_front() -> None:
    cells = report().cells
    best = replace(cells[0], status="partial", is_reference=False)
    drawn = charts(replace(report(), cells=(best,)))
    assert drawn
    assert not any('class="ring"' in chart.svg for chart in drawn)


def test_no_figures_no_plot_but_a_page() -> None:
    failed = CellSummary("m", "off", True, "failed", reason="no such file: m.gguf", n_items=3)
    text = html(Report("s", "00", 3, "m / off", (failed,), {}, "aim-local compare", "2026-01-01T00:00:00Z"))
    assert "<figure>" not in text
    assert text.count("no such file: m.gguf") == 2
    assert "1.000" not in text  # the default FLOPs share of a cell that never ran is no figure


def test_points_at_one_place_go_aside_and_keep_their_height() -> None:
    places = plots.spread([(100.0, 50.0)] * 4)
    assert len(set(places)) == 4
    assert {y for _, y in places} == {50.0}
    assert max(abs(x - 100) for x, _ in places) <= 30


# the page


def test_page_holds_every_cell_and_obeys_none() -> None:
    found = Found(html(report()))
    body = [row for row in found.rows if len(row) == 2 + len(columns(report()))][1:]
    assert len(body) == 15
    assert [re.sub(" +", " ", row[0]).strip() for row in body][:2] == ["demo f16 off (reference)", "demo f16 paper"]
    assert body[7][1] == f"failed 0 of {N} {REASON} "
    assert "b" not in found.tags
    assert found.tags.count("script") == 2
    assert COMMAND in html(report())


def test_page_sorts_by_the_values_it_shows() -> None:
    values = json.loads(Found(html(report())).data)
    assert len(values) == 15
    assert values[1]["right"] == 0.91
    assert values[1]["difference"] == -8.5
    assert values[1]["model"] == 0
    assert "right" not in values[7]
    assert "flops" not in values[7]
    assert values[7]["status"] == 2
    assert "kld" not in values[12]
    assert values[12]["setting"] == SETTINGS.index("fast")


def test_headings_have_scopes_and_plots_have_names() -> None:
    text = html(report())
    assert not re.search(r"<th(?![^>]*scope)", text.replace("<thead", ""))
    svgs = re.findall(r'<svg viewBox="[^"]*" role="img" aria-labelledby="(\S+) (\S+)">', text)
    assert len(svgs) == len(set(svgs)) == 7  # the large one also for narrow screens
    assert all(f'<title id="{t}">' in text and f'<desc id="{d}">' in text for t, d in svgs)


def test_every_figure_knows_its_heading_for_print() -> None:
    heads = re.findall(r"data-head='([^']*)'", html(report()))
    n = len(columns(report()))
    assert len(heads) == 15 * n
    assert len(set(heads[:n])) == n, "none stands for two columns"
    assert "prefill, tokens a second" in heads


def test_columns_without_figures_are_left_out() -> None:
    bare = tuple(replace(cell, accuracy=None, paired=None, by_tag={}, divergence=None) for cell in report().cells)
    keys = [column.key for column in columns(replace(report(), cells=bare))]
    assert "agree" in keys
    assert not {"right", "difference", "flips", "kld", "top1"} & set(keys)
    text = html(replace(report(), cells=bare))
    assert "Right by tag" not in text
    assert "McNemar" not in text


def test_write_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_html(report(), path)
    assert path.read_text(encoding="utf-8") == html(report())
    monkeypatch.setattr("aim_local.lab.compare.page.html", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_html(report(), path)
    assert path.read_text(encoding="utf-8") == html(report())
    assert list(tmp_path.iterdir()) == [path]


# words


def test_number_of_comparisons_is_said_and_is_right() -> None:
    assert len(sentences.tested(report())) == 13  # 15 cells, less the reference and the failed one
    said = next(line for line in reading(report()) if "Bonferroni" in line)
    assert "comparisons, which is 13" in said
    assert "about 0.65" in said
    assert "limit is 0.0038" in said
    assert "13 comparisons" in markdown(report())


def test_summary_names_every_cell_under_its_verdict() -> None:
    first, *advice, losing, undecided, none, undefined = summary(report())
    assert first == "14 cells compared with demo f16 / off, which answers 99.5% of 200 questions right."
    assert advice[0] == "Too few questions to say: about 2,600 needed."
    assert advice[1].startswith(f"{MODELS[1]} / off: -0.5 points (95% from -3.1 to +1.9) over 200 questions; to tell")
    assert losing.startswith("Loses more than 1 point: demo f16 / paper, demo f16 / fast,")
    assert losing.count(" / ") == 10
    assert undecided == (
        f"Too few questions to say: {MODELS[1]} / off (about 2,600 needed), {MODELS[2]} / off (about 7,800 needed)."
    )
    assert none == f"No verdict: {MODELS[1]} / fast, {MODELS[2]} / late-drop."
    assert undefined == "No KL divergence for 1 cell with another vocabulary than the reference's."


def test_failed_reference_is_said() -> None:
    cells = tuple(
        CellSummary(c.model, c.setting, c.is_reference, "failed", reason="broken file", n_items=N)
        for c in report().cells
    )
    assert "nothing can be compared" in summary(replace(report(), cells=cells))[0]
    assert "nothing can be compared" in html(replace(report(), cells=cells))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (kld(3e-8), "0"),
        (kld(0.00213), "0.0021"),
        (kld(0.000021), "2e-5"),
        (kld(1.23456), "1.235"),
        (p_value(0.0004), "<0.001"),
        (p_value(0.0494), "0.049"),
        (p_value(1.0), "1.00"),
        (percent(0.998), "99.8%"),
        (size(999), "999 B"),
        (size(999_600), "1.00 MB"),
        (size(366_592), "367 kB"),
        (size(16_200_000_000), "16.2 GB"),
    ],
)
def test_numbers_read(shown: str, text: str) -> None:
    assert shown == text


# text forms


def test_markdown_table_is_whole() -> None:
    lines = markdown(report()).splitlines()
    table = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert len(table) == 2 + 15
    assert {len(row) for row in table} == {12}
    assert table[3][2:5] == [" 91.0% (86.2-94.2) ", " -8.5 (-13.2 to -5.4, p <0.001) ", " no, it loses more "]
    assert any(line.startswith("- demo q8") and "killed by signal 9" in line for line in lines)
    assert f"`{COMMAND}`" in lines[-1]
    assert "AMD EPYC" in lines[-1]
    assert not re.search(r"(?<!\\)<(script|b)", markdown(report()))


def test_command_with_backticks_stays_code() -> None:
    assert markdown(replace(report(), command="a `` b")).splitlines()[-1].startswith("```a `` b```, suite")
    assert markdown(replace(report(), command="`a`")).splitlines()[-1].startswith("`` `a` ``, suite")


def test_terminal_rows_fit_and_tell_cells_apart() -> None:
    rows = terminal_rows(report())
    width = sum(max(len(row[i]) for row in rows) for i in range(len(rows[0]))) + 2 * (len(rows[0]) - 1)
    assert len(rows) == 16
    assert width <= TERMINAL_WIDTH
    assert len({(row[0], row[1]) for row in rows[1:]}) == 15
    assert rows[2][3:6] == ["91.0%", "-8.5 (<.001)", "91.0%"]
    assert rows[8][2:] == ["failed", *["-"] * 9]
    assert any(REASON in line for line in terminal_notes(report()))


def test_names_alike_at_both_ends_stay_apart() -> None:
    names = [f"llava-onevision-{middle}-instruct-q4_0.gguf" for middle in ("0.5b", "1.5b", "7b")]
    cells = tuple(replace(report().cells[0], model=name) for name in names)
    rows = terminal_rows(replace(report(), cells=cells))
    assert len({row[0] for row in rows[1:]}) == 3


def test_fixture_is_what_the_tests_think() -> None:
    assert len(report().cells) == len(MODELS) * len(SETTINGS) == 15
    json.dumps(report().to_dict(), allow_nan=False)
