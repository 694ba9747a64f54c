"""What the service's page says when something goes wrong, and what it makes of text that means harm.

Skipped without Chromium.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import browser

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
pytest.importorskip("fastapi")

from page_case import DESKTOP, NEEDLE, PHONE, QUESTION, Tab, chromium, service
from page_service import ATTACK, PageService
from playwright.sync_api import Page, expect

__all__ = ["chromium", "service"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to check pages in a browser"),
]


def test_refusals_are_said_and_can_be_tried_again(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service, PHONE, color_scheme="dark").open().clip() as tab:
        said = tab(".turn:last-child .failure p")
        tab.ask("!refused 900 frames")
        expect(said).to_have_text(["This could not be asked like that", "frames is 900; at most 256 are taken"])
        tab.check_access()
        tab.ask("!fails")
        expect(said).to_have_text(["The service is not ready", "the service was stopped while it answered"])
        expect(tab(".turn:last-child .text")).to_have_text("It begins")  # what was said stays
        tab.ask("!broken")
        expect(said.first).to_have_text("The answer broke off")
        service.status = "stopping"
        tab.ask(QUESTION)
        expect(said.last).to_have_text("the service is stopping and takes no more questions")
        expect(tab("#state")).to_have_text("stopping")
        service.status = "ok"
        tab(".turn:last-child >> text=Try again").click()
        expect(tab(".turn:last-child .text")).to_have_text("red cross")
        # questions that were not answered are no part of the conversation, and the clip goes with the one that is
        (message,) = service.asked[-1]["messages"]
        assert message["content"][0]["file"] == {"file_id": "file-1"}


@pytest.mark.thorough
def test_a_busy_service_is_asked_again(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        service.busy = 1
        tab.ask(QUESTION)
        expect(tab(".progress .hint")).to_have_text("The service is busy. Asking again in 1 s")
        expect(tab(".turn .text")).to_have_text("red cross")
        assert len(service.asked) == 2
        service.busy = 1
        tab.ask("And?")
        expect(tab(".progress .hint")).to_contain_text("busy")
        tab("#question").press("Escape")
        expect(tab(".note")).to_have_text("Stopped before the first word.")


def test_a_key_is_asked_for(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service) as tab:
        service.key = "open sesame"
        tab.page.goto(service.url)
        expect(tab("#key-dialog")).to_be_visible()
        tab.check_access()
        tab("#key").fill("wrong")
        tab("#key").press("Enter")
        expect(tab("#key-wrong")).to_be_visible()
        tab("#key").fill("open sesame")
        tab("#key").press("Enter")
        expect(tab("#state")).to_have_text("ready")
        expect(tab("#key-dialog")).to_be_hidden()
        tab.clip().answered()
        tab.page.reload()  # the tab knows it still
        expect(tab("#state")).to_have_text("ready")
        assert tab.page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0


def test_a_service_that_is_gone(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        tab.page.context.set_offline(True)
        tab.ask(QUESTION)
        expect(tab(".failure .title")).to_have_text("The service does not answer")
        expect(tab("#state")).to_have_text("not reachable")
        tab.page.context.set_offline(False)
        tab("text=Try again").click()
        expect(tab(".turn .text")).to_have_text("red cross")


@pytest.mark.thorough
def test_a_service_that_was_started_anew_gets_the_clips_again(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip().answered() as tab:
        service.uploads = {"file-9": b""}
        tab.ask("And then?")
        expect(tab(".failure .title")).to_have_text("The service does not have this any more")
        tab("text=Try again").click()
        expect(tab(".turn:last-child .text")).to_have_text("red cross")
        assert service.asked[-1]["messages"][0]["content"][0]["file"] == {"file_id": "file-2"}


@pytest.mark.thorough
def test_uploads_can_be_cancelled_refused_and_waited_for(chromium: Page, service: PageService, tmp_path: Path) -> None:
    with Tab(chromium, service).open() as tab:
        service.upload_gate.clear()
        tab.give(NEEDLE)
        expect(tab(".card.sending progress")).to_have_count(1)
        tab.check_access()
        tab("role=button[name='Cancel the upload of needle.mp4']").click()
        expect(tab("#landing")).to_be_visible()
        tab.give(NEEDLE)
        tab.ask(QUESTION)  # while it is on its way
        expect(tab(".progress .hint")).to_contain_text("Uploading")
        service.upload_gate.set()
        expect(tab(".turn .text")).to_have_text("red cross")
        assert len(service.asked) == 1
        service.refuse_upload = "notes.mp4 is text; give a video or a picture"
        (tmp_path / "notes.mp4").write_text("just words")
        tab.give(tmp_path / "notes.mp4")
        expect(tab(".card.failed .about")).to_have_text("not uploaded")
        expect(tab("#upload-error")).to_have_text("notes.mp4 is text; give a video or a picture")
        tab.check_access()


def test_text_is_never_html(chromium: Page, service: PageService, tmp_path: Path) -> None:
    """From the model, from the service, from a file's name, and from the user."""
    with Tab(chromium, service).open() as tab:
        evil = tmp_path / "<img src=x onerror=alert(5)>.mp4"
        evil.write_bytes(NEEDLE.read_bytes())
        tab.clip(evil)
        tab.answered(f"!attack {ATTACK}")
        assert tab(".turn .text").inner_text() == ATTACK
        assert ATTACK in tab(".asked p").inner_text()
        assert ATTACK in tab(".note").inner_text()
        assert tab(".evidence summary").inner_text() == ATTACK
        tab(".frame >> nth=0").click()
        assert ATTACK in tab("#frame-title").inner_text()
        assert (
            tab.page.evaluate(
                "document.querySelectorAll('img[src=x], script:not([src]), [onerror], a[href^=javascript]').length"
            )
            == 0
        )
        tab.check_quiet()  # nor was a picture fetched from where the service said
        with pytest.raises(Exception, match="TrustedHTML"):
            tab.page.evaluate("document.body.innerHTML = '<b>x</b>'")


def test_what_went_wrong_with_an_answer(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service, DESKTOP).open().clip() as tab:
        tab.answered("!toy")
        expect(tab(".note.toy")).to_contain_text("the bundled toy model knows only its own clips")
        tab.answered("!cut")
        expect(tab(".turn:last-child .note")).to_have_text("The answer reached its longest length and was cut there.")
        tab.check_access()
        tab.check_quiet()
