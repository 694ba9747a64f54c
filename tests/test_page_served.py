"""The page with the service itself and the bundled model, in Chromium. Skipped without Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import browser
from PIL import Image

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
pytest.importorskip("aim_local.server.http.app")

from page_case import DESKTOP, PHONE, QUESTION, Tab, chromium
from playwright.sync_api import Page, expect
from server_case import Running, running, served

__all__ = ["chromium", "served"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to check pages in a browser"),
]
SUMMARY = ".turn:last-child .evidence summary"


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(PHONE, "dark"), pytest.param(DESKTOP, "light", marks=pytest.mark.thorough)],
    ids=["phone", "desktop"],
)
def test_clips_are_asked_about(chromium: Page, served: Running, size: tuple[int, int], scheme: str) -> None:
    with Tab(chromium, served, size, color_scheme=scheme).open().clip() as tab:
        tab("#reading").evaluate("details => { details.open = true; }")
        tab("input[value=off]").check()
        tab.answered()
        expect(tab(".turn .text")).to_have_text("red cross")
        expect(tab(SUMMARY)).to_have_text("The model read all 129 pieces")
        tab.answered("And what else?")
        expect(tab(".turn:last-child .facts")).to_contain_text("known from before")
        tab("#share").fill("50")
        tab.answered(QUESTION)
        expect(tab(SUMMARY)).to_contain_text("of 129 pieces")
        expect(tab(".turn:last-child .stages")).to_contain_text("First word after")
        tab(".turn:last-child .when >> nth=4").click()
        assert tab.at == pytest.approx(1.0)
        tab.check_access()
        tab.check_quiet()


def test_what_the_toy_does_not_know_is_said(chromium: Page, served: Running, tmp_path: Path) -> None:
    with Tab(chromium, served).open() as tab:
        Image.new("RGB", (80, 60), "red").save(tmp_path / "square.png")
        tab.give(tmp_path / "square.png", mime="image/png")
        expect(tab(".card.there")).to_have_count(1)
        tab.answered("What is it?")
        expect(tab(".note.toy")).to_contain_text("toy")
        tab.check_quiet()


def test_refusals_are_the_services_own_words(chromium: Page, served: Running, tmp_path: Path) -> None:
    with Tab(chromium, served).open().clip() as tab:
        tab("#frames").fill("900")
        tab.ask(QUESTION)
        expect(tab(".failure")).to_contain_text("900 frames are asked for; at most 256 are allowed")
        (tmp_path / "notes.mp4").write_text("just words")
        tab.give(tmp_path / "notes.mp4")
        expect(tab(".card.failed")).to_have_count(1)
        expect(tab("#upload-error")).to_contain_text("notes.mp4")


def test_a_key_opens_it(chromium: Page) -> None:
    with running(keys=["open-sesame"]) as served, Tab(chromium, served) as tab:
        tab.page.goto(served.url)
        tab("#key").fill("open-sesame")
        tab("#key").press("Enter")
        expect(tab("#state")).to_have_text("ready")
        tab.clip().answered()
        expect(tab(".turn .text")).to_have_text("red cross")
