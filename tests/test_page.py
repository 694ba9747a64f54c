"""The service's page in Chromium, on a phone and a desktop, light and dark: from a clip to an answer and back to it.

Skipped without Chromium.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import browser
from PIL import Image
from thorough import few

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
pytest.importorskip("fastapi")

from media_fixtures import write_clip
from page_case import DESKTOP, NEEDLE, PHONE, QUESTION, SECONDS, TIME, Tab, chromium, service
from page_service import PageService, named
from playwright.sync_api import Page, expect

__all__ = ["chromium", "service"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to check pages in a browser"),
]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param(DESKTOP, "light", id="desktop-light", marks=pytest.mark.thorough),
        pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.thorough),
        pytest.param(DESKTOP, "dark", id="desktop-dark", marks=pytest.mark.thorough),
    ],
)
def test_the_whole_way(chromium: Page, service: PageService, size: tuple[int, int], scheme: str) -> None:
    """Upload, play, budget, ask, stream, stop, seek by time, frames; quiet, and nothing serious in any state."""
    with Tab(chromium, service, size, color_scheme=scheme).open() as tab:
        tab.check_access()
        tab.clip()
        assert service.uploads["file-1"] == NEEDLE.read_bytes()
        tab("#play").click()
        expect(tab("#at")).not_to_contain_text("0:00.0 /")  # it moves
        expect(tab("#play")).to_have_attribute("aria-label", "Play")  # after two seconds it is over
        tab("#reading").evaluate("details => { details.open = true; }")
        tab("#share").fill("40")
        tab("#frames").fill("4")
        expect(tab("#reading-brief")).to_have_text("40 % budget, 4 frames")
        tab.check_access()

        tab.ask("!slow When?")
        expect(tab(".steps .vision")).to_have_class("vision now")
        expect(tab(".progress .hint")).to_have_text("Looking, 3 of 8 frames")
        if size == PHONE:  # nothing in it has another place on a desktop
            tab.check_access()
        service.go()
        expect(tab(".text.growing")).to_have_text("It begins at 0:01 and then ")
        tab("#send").click()  # which is the stop button now
        expect(tab(".note")).to_have_text("Stopped here.")
        assert service.hung_up.wait(20)

        service.text = "At 0:01 it is red, and from 0.5 to 1.5 seconds it moves. 9:59 is behind the end."
        tab.answered()
        assert service.asked[1]["visual_tokens"] == "budget=0.4"
        expect(tab(".turn >> nth=1 >> .text .time")).to_have_text(["0:01", "0.5 to 1.5 seconds"])
        tab(".text .time >> text=0:01 >> nth=-1").click()
        expect(tab("#at")).to_have_text("0:01.0 / 0:02.0")
        expect(tab("#play")).to_have_attribute("aria-label", "Play")  # a still, also where the clip was playing
        tab(".text .time >> text=0.5 to 1.5").click()
        expect(tab("#at")).to_have_text("0:01.5 / 0:02.0")  # it stops at the end of the span
        expect(tab("#play")).to_have_attribute("aria-label", "Play")
        assert tab.at == pytest.approx(1.5)

        tab(".turn:last-child .frame >> nth=2").click()
        expect(tab("#frame-dialog")).to_be_visible()
        tab.check_access()
        tab("#frame-dialog >> text=in the player").click()
        assert tab.at == pytest.approx(0.5)
        tab.check_access()
        tab.check_quiet()


def test_what_is_sent(chromium: Page, service: PageService) -> None:
    """The clip goes with the question once; a follow-up carries the conversation; another part of it goes again."""
    with Tab(chromium, service).open().clip() as tab:
        tab.answered().answered("And then?")
        first, second = service.asked
        assert first["messages"] == [
            {
                "role": "user",
                "content": [{"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": QUESTION}],
            }
        ]
        assert second["messages"] == [
            *first["messages"],
            {"role": "assistant", "content": "red cross"},
            {"role": "user", "content": "And then?"},
        ]
        wanted = {
            "stream": True,
            "return_progress": True,
            "return_looks": True,
            "visual_tokens": "auto",
            "model": "bundled",
        }
        assert wanted.items() <= first.items()

        tab("#from-here").click()  # the beginning is no cut
        expect(tab("#range-text")).to_have_text("The whole clip")
        tab("#seek").fill("0.5")
        tab("#from-here").click()
        tab("#seek").fill("1.5")
        tab("#to-here").click()
        expect(tab("#range-text")).to_have_text("From 0:00.5 to 0:01.5")
        expect(tab("#with")).to_have_text("needle.mp4 goes with it, from 0:00.5 to 0:01.5")
        tab("input[value=off]").check()
        tab.answered("And there?")
        part = service.asked[2]["messages"][-1]["content"][0]
        assert part == {"type": "file", "file": {"file_id": "file-1"}, "start": 0.5, "end": 1.5}
        assert service.asked[2]["visual_tokens"] == "off"

        tab("#new-chat").click()
        expect(tab(".turn")).to_have_count(0)
        tab.answered()
        assert len(service.asked[3]["messages"]) == 1  # nothing of before, but the clip
        assert len(service.uploads) == 1
        tab.check_quiet()


def test_several_clips_and_pictures(chromium: Page, service: PageService, tmp_path: Path) -> None:
    with Tab(chromium, service).open().clip() as tab:
        tab.answered("!cut")
        expect(tab("#ticks i")).to_have_count(8)  # the frames that were read, on the line of time
        picture = tmp_path / "square.png"
        Image.new("RGB", (80, 60), "red").save(picture)
        tab.give(picture, "paste", "image/png")
        expect(tab(".card.there")).to_have_count(2)
        expect(tab("#picture")).to_be_visible()
        expect(tab("#controls")).to_be_hidden()
        (tmp_path / "other.avi").write_bytes(b"RIFF none of it can be played")
        tab.give(tmp_path / "other.avi", mime="video/x-msvideo")
        expect(tab("#unplayable")).to_be_visible()
        expect(tab(".card.there")).to_have_count(3)
        tab.check_access()
        tab("role=button[name='Remove other.avi']").click()
        expect(tab(".card")).to_have_count(2)
        assert "file-3" in service.removed
        tab.answered()
        assert named(service.asked[1]) == ["file-1", "file-2"]
        expect(tab("#screen img")).to_have_attribute("alt", "square.png")
        tab.clip(TIME)
        expect(tab("#ticks i")).to_have_count(0)  # nothing of this one was read yet
        tab(".pick >> nth=0").click()
        expect(tab("#ticks i")).to_have_count(8)
        tab("role=button[name='Remove needle.mp4']").click()
        tab.answered("Still?")
        assert named(service.asked[2]) == ["file-2", "file-4"]
        tab.check_quiet()


@pytest.mark.parametrize("size", few([PHONE, DESKTOP], 1), ids=["phone", "desktop"])
def test_the_newest_answer_is_in_sight(chromium: Page, service: PageService, size: tuple[int, int]) -> None:
    """Also where what it was made from is taller than the screen; who has scrolled up is left there."""
    with Tab(chromium, service, size).open().clip() as tab:
        for n in range(3):
            tab.answered(f"Question {n}?")
            expect(tab(".turn:last-child .asked")).to_be_in_viewport(ratio=1)
            expect(tab(".turn:last-child .text")).to_be_in_viewport(ratio=1)
        tab.ask("!slow")
        expect(tab(".steps .vision")).to_have_class("vision now")
        expect(tab(".turn:last-child .asked")).to_be_in_viewport(ratio=1)
        tab(".turn >> nth=0").hover()
        tab.page.mouse.wheel(0, -4000)
        expect(tab(".turn >> nth=0 >> .asked")).to_be_in_viewport(ratio=1)
        service.go()
        expect(tab(".text.growing")).to_contain_text("and then")
        service.go()
        expect(tab(".evidence")).to_have_count(4)
        expect(tab(".turn >> nth=0 >> .asked")).to_be_in_viewport(ratio=1)


def test_a_time_that_still_grows_is_none_yet(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        tab.ask("!grows")
        expect(tab(".text.growing")).to_have_text("At 0:01")
        expect(tab(".text .time")).to_have_count(0)
        service.go()
        expect(tab(".text .time")).to_have_text(["0:01"])  # 0:01:30 is behind the clip's end


def test_a_recording_without_its_length(chromium: Page, service: PageService, tmp_path: Path) -> None:
    """As browsers record them: the player finds the end, and shows the beginning."""
    with Tab(chromium, service).open() as tab:
        live = write_clip(tmp_path / "live.webm", 50, "libvpx", container_options={"live": "1"})
        tab.give(live, mime="video/webm")
        expect(tab("#at")).to_have_text("0:00.0 / 0:02.0")
        tab.check_quiet()


def test_dragging_over_the_page(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open() as tab:
        drag = "t => document.body.dispatchEvent(new DragEvent(t, { bubbles: true, dataTransfer: over }))"
        tab.page.evaluate("() => { window.over = new DataTransfer(); over.items.add(new File(['x'], 'x.mp4')); }")
        tab.page.evaluate(drag, "dragenter")
        expect(tab("#veil")).to_be_visible()
        tab.check_access()
        tab.page.evaluate(drag, "dragleave")
        expect(tab("#veil")).to_be_hidden()


def test_a_clip_is_taken_away_with_the_page(chromium: Page, service: PageService) -> None:
    with Tab(chromium, service).open().clip() as tab:
        tab.page.goto("about:blank")
        assert service.took_away.wait(SECONDS)
        assert service.removed == ["file-1"]


def test_text_with_marks(chromium: Page, service: PageService) -> None:
    """What models write of Markdown, while it comes and when it is there; what is copied is what was said."""
    with Tab(chromium, service).open().clip() as tab:
        service.text = "## At first\n- a **red cross at 0:01**\n- `x < y`\n1. one\n**not closed at 0:01"
        tab.answered()
        expect(tab(".text .head")).to_have_text("At first")
        expect(tab(".text .item")).to_have_text(["a red cross at 0:01", "x < y"])
        expect(tab(".text .numbered")).to_have_text("1. one")
        expect(tab(".text p >> nth=-1")).to_have_text("**not closed at 0:01")
        expect(tab(".text strong .time")).to_have_text("0:01")
        tab("text=Copy").click()
        assert tab.page.evaluate("navigator.clipboard.readText()") == service.text
        tab.check_quiet()
