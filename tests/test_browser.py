"""The comparison page in a real browser, at the size of a phone and of a desktop. Skipped without Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import DESKTOP, PHONE, Page, browser, check_quiet_and_narrow
from compare_reports import report

from aim_local.lab.compare.page import write_html

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


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
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
