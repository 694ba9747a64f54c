"""The service's page by keyboard and ear, enlarged, and without motion. Skipped without Chromium."""

from __future__ import annotations

import pytest
from chromium import browser

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
pytest.importorskip("fastapi")

from page_case import NEEDLE, PHONE, QUESTION, TIME, Tab, chromium, service
from page_service import PageService
from playwright.sync_api import Page, expect
from thorough import few

__all__ = ["chromium", "service"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to check pages in a browser"),
]
FOCUS = "(e => e.getAttribute('aria-label') || e.id || e.textContent.trim())(document.activeElement)"


def walk(tab: Tab, until: str, most: int = 60) -> list[str]:
    """Tab stops from here on, each with a visible ring, up to the one that is called `until`."""
    names: list[str] = []
    while not names or names[-1] != until:
        assert len(names) < most, names
        tab.page.keyboard.press("Tab")
        names.append(tab.page.evaluate(FOCUS))
        ring = "getComputedStyle(document.activeElement)"
        seen = tab.page.evaluate(
            f"document.activeElement.matches('.field textarea, .choices input') || {ring}.outlineStyle !== 'none'"
        )
        assert seen, f"{names[-1]} shows no focus"
    return names


def test_everything_by_keyboard(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        service.text = "At 0:01 it is red."
        tab("#question").press("Shift+Enter")  # a new line only
        assert service.asked == []
        tab.answered()
        tab.page.evaluate("document.activeElement.blur(), window.getSelection().removeAllRanges()")
        tab("#new-chat").focus()
        names = walk(tab, "Ask")
        for name in (
            "needle.mp40:02.0",
            "Remove needle.mp4",
            "Play",
            "Position in the clip",
            "Mute",
            "share",
            "from-here",
        ):
            assert name in names, (name, names)
        for name in (
            "frames",
            "Jump to 0:01",
            "Copy",
            "Ask again",
            "What was kept",
            "Add a clip or a picture",
            "Question",
        ):
            assert name in names, (name, names)
        frames = [name for name in names if name.startswith("Enlarge")]
        assert len(frames) == 1  # one stop for all frames; arrows go on from there

        tab(".frame >> nth=0").focus()
        tab.page.keyboard.press("ArrowRight")
        tab.page.keyboard.press("End")
        assert tab.page.evaluate(FOCUS).startswith("Enlarge frame 15")
        tab.page.keyboard.press("Enter")
        expect(tab("#frame-title")).to_contain_text("frame 15")
        tab.page.keyboard.press("ArrowLeft")
        expect(tab("#frame-title")).to_contain_text("frame 12")
        tab.page.keyboard.press("Escape")
        expect(tab("#frame-dialog")).to_be_hidden()
        assert tab.page.evaluate(FOCUS).startswith("Enlarge frame 15")  # back where one came from
        tab.check_quiet()


def test_the_focus_is_not_lost(chromium: Page, service: PageService) -> None:
    """Rows are drawn anew while one stands in them, and clips are taken away under one's hands."""
    with Tab(chromium, service).open() as tab:
        service.upload_gate.clear()
        tab.give(NEEDLE)
        tab("role=button[name='Cancel the upload of needle.mp4']").focus()
        service.upload_gate.set()
        expect(tab(".card.there")).to_have_count(1)
        assert tab.page.evaluate(FOCUS) == "Remove needle.mp4"
        tab.clip(TIME)
        tab("role=button[name='Remove time.mp4']").press("Enter")
        assert tab.page.evaluate(FOCUS).startswith("needle.mp4")
        tab("role=button[name='Remove needle.mp4']").press("Enter")
        assert tab.page.evaluate(FOCUS) == "choose"


def test_escape_stops_and_stopped_answers_can_be_copied(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        tab.ask("!slow")
        service.go()
        expect(tab(".text.growing")).to_contain_text("and then")
        tab.page.keyboard.press("Escape")
        expect(tab(".note")).to_have_text("Stopped here.")
        tab("text=Copy").click()
        expect(tab(".tools")).to_contain_text("Copied")
        assert tab.page.evaluate("navigator.clipboard.readText()") == "It begins at 0:01 and then "


def test_an_answer_is_spoken_once(chromium: Page, service: PageService) -> None:
    """The live region gets the whole answer at its end, and nothing of the stream before."""
    with Tab(chromium, service).open().clip() as tab:
        tab.page.evaluate("""() => {
          window.heard = [];
          const hear = () => spoken.textContent && heard.push(spoken.textContent);
          new MutationObserver(hear).observe(spoken, { childList: true });
        }""")
        tab.answered()
        expect(tab("#spoken")).to_have_text("Answer: red cross")
        assert tab.page.evaluate("heard") == ["Answer: red cross"]
        assert tab("[aria-live], [role=status], [role=log], [role=alert]").count() == 1
        names = tab.page.evaluate(
            "[...document.querySelectorAll('header, main, section, form, article')].map(e => e.tagName)"
        )
        assert {"HEADER", "MAIN", "SECTION", "FORM", "ARTICLE"} <= set(names)


@pytest.mark.parametrize("size", few([(320, 568), (683, 384)], 1), ids=["small phone", "desktop at 200 %"])
def test_enlarged(chromium: Page, service: PageService, size: tuple[int, int]) -> None:
    with Tab(chromium, service, size).open().clip().answered() as tab:
        tab.check_access()
        box = tab("#question").bounding_box()
        assert box is not None
        tab("#question").scroll_into_view_if_needed()
        tab("#send").click(trial=True)  # nothing lies over it


def test_without_motion(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service, PHONE, reduced_motion="reduce").open().clip() as tab:
        tab.ask("!slow")
        service.go()
        expect(tab(".text.growing")).to_contain_text("and then")
        moving = tab.page.evaluate("document.getAnimations().length")
        assert moving == 0


def test_right_to_left_lines_stay_apart(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        service.text = "\u05d1\u05d6\u05de\u05df 0:01 \u05d0\u05d3\u05d5\u05dd.\nAt 0:01 red."
        tab.answered(f"\u05de\u05d4? {QUESTION}")
        directions = tab(".text p").evaluate_all("all => all.map((p) => getComputedStyle(p).direction)")
        assert directions == ["rtl", "ltr"]
        expect(tab(".text .time")).to_have_text(["0:01", "0:01"])
