"""The comparison page in a real browser, at the size of a phone and of a desktop. Skipped without Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import DESKTOP, PHONE, Page, browser, check_quiet_and_narrow
from compare_reports import MODELS, N, cell, report
from thorough import few

from aim_local.lab.compare.page import write_html
from aim_local.lab.compare.records import Paired, Report
from aim_local.lab.compare.verdict import judged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to check pages in a browser"),
]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(report(), path)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("size", "dark"),
    [
        (PHONE, True),
        (DESKTOP, False),
        pytest.param(PHONE, False, marks=pytest.mark.thorough),
        pytest.param(DESKTOP, True, marks=pytest.mark.thorough),
    ],
)
def test_page_is_quiet_and_fits(page: Page, comparison: Path, size: tuple[int, int], dark: bool) -> None:
    check_quiet_and_narrow(page, comparison, size, dark)


def test_a_page_that_talks_asks_or_overflows_is_caught(page: Page, tmp_path: Path) -> None:
    (tmp_path / "other.css").touch()
    for name, body, fault in (
        ("talks", "<script>console.log('x')</script>", "says .*console.log"),
        ("throws", "<script>null.x</script>", "says .*TypeError"),
        ("asks", "<link rel=stylesheet href='other.css'>", "asks for .*other.css"),
        ("wide", "<div style='width:2000px'>x</div>", "px wide"),
    ):
        path = tmp_path / f"{name}.html"
        path.write_text(f"<!doctype html><meta name=viewport content='width=device-width'>{body}", encoding="utf-8")
        with pytest.raises(AssertionError, match=fault):
            check_quiet_and_narrow(page, path, PHONE)


def crowded() -> Report:
    """24 cells with long names, close together: what has to fit beside each other on a phone."""
    base, cells = report(), []
    for m in range(3):
        for n, setting in enumerate(
            ("off", "auto", "fast", *(f"paper:keep=0.{i}:importance=question" for i in range(1, 6)))
        ):
            one = cell(m, "paper" if n else "off")
            lost = Paired(3 + n, 2 + m, 0.9, N)
            cells.append(replace(one, model=f"{MODELS[2]}-{m}", setting=setting, is_reference=m == n == 0, paired=lost))
    return judged(replace(base, cells=tuple(cells), reference=cells[0].key))


@pytest.mark.parametrize("size", few([PHONE, DESKTOP], 1))
def test_many_cells_with_long_names_fit(page: Page, tmp_path: Path, size: tuple[int, int]) -> None:
    write_html(crowded(), tmp_path / "report.html")
    check_quiet_and_narrow(page, tmp_path / "report.html", size)
    # what is labelled, is seen: of the large plot one form is shown, and in it no label covers another
    shown = """[...document.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().width)
        .map(svg => [...svg.querySelectorAll(".label")].map(text => text.getBoundingClientRect())
            .map(b => [b.left, b.right, b.top, b.bottom]))"""
    plots = page.evaluate(shown)
    assert [len(labels) for labels in plots] == [24] * 6
    for labels in plots:
        for i, (left, right, top, bottom) in enumerate(labels):
            for other in labels[:i]:
                apart = right <= other[0] or other[1] <= left or bottom - 3 <= other[2] or other[3] - 3 <= top
                assert apart, (left, right, top, bottom, other)


def test_the_verdict_comes_first(page: Page, comparison: Path) -> None:
    for size in (PHONE, DESKTOP):
        page.open(comparison, size)
        assert page.evaluate("document.querySelector('main h2').textContent").startswith("Too few questions to say")
        bottom = page.evaluate("document.querySelector('.card').getBoundingClientRect().bottom")
        assert bottom <= size[1], "the card is on the first screen"


def test_bars_can_be_read_in_the_dark(page: Page, comparison: Path) -> None:
    """WCAG asks for a contrast of 3 between graphics and what is behind them: here after the bars' opacity."""
    contrast = """(() => {
      const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
      const lum = colour => colour.map(v => linear(v / 255))
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const back = rgb(getComputedStyle(document.body).backgroundColor);
      return Math.min(...[...document.querySelectorAll("figure .bar")].map(bar => {
        const style = getComputedStyle(bar), share = Number(style.opacity);
        const seen = rgb(style.stroke).map((v, i) => share * v + (1 - share) * back[i]);
        const [a, b] = [lum(seen), lum(back)].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
      }));
    })()"""
    for dark in (False, True):
        page.open(comparison, DESKTOP, dark)
        assert page.evaluate(contrast) >= 3


def test_table_sorts_both_ways_and_keeps_missing_last(page: Page, comparison: Path) -> None:
    page.open(comparison, DESKTOP)
    shown = "[...document.querySelectorAll('#cells tbody tr')].map(row => row.dataset.i)"
    right = "document.querySelector('#cells [data-key=right]')"
    page.evaluate(f"{right}.click()")
    rising = page.evaluate(shown)
    assert rising[0] == "12"
    assert rising[-1] == "7"
    assert page.evaluate(f"{right}.closest('th').getAttribute('aria-sort')") == "ascending"
    page.evaluate(f"{right}.click()")
    falling = page.evaluate(shown)
    assert falling[0] == "0"
    assert falling[-1] == "7"
    assert sorted(falling, key=int) == [str(i) for i in range(15)]


def test_names_stay_in_sight_on_a_phone(page: Page, comparison: Path) -> None:
    page.open(comparison, PHONE)
    left = "document.querySelector('#cells tbody th').getBoundingClientRect().left"
    before = page.evaluate(left)
    scrolled = page.evaluate("(b => (b.scrollLeft = 600, b.scrollLeft))(document.querySelector('.scroll'))")
    assert scrolled == 600
    assert page.evaluate(left) == pytest.approx(before, abs=2)


def test_touched_point_says_its_figures(page: Page, comparison: Path) -> None:
    page.open(comparison, PHONE)
    page.evaluate("document.querySelector('.point').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert page.evaluate("document.querySelector('.readout').textContent").startswith("demo f16 / off: 99.5% right")


def test_nothing_is_missing_without_scripts(page: Page, comparison: Path) -> None:
    page.open(comparison, PHONE, scripts=False)
    text = page.evaluate("document.querySelector('#cells').textContent")
    assert "killed by signal 9" in text
    assert "KLD mean" in text
    assert page.evaluate("document.querySelectorAll('#cells button').length") == 0
    assert page.evaluate("document.querySelectorAll('#cells tbody tr').length") == 15
