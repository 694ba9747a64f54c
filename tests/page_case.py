"""What browser tests of the service's page share: a service, a browser, a tab that notes what it says and asks for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import _FLAGS, browser
from page_service import PageService
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect, sync_playwright

import aim_local
from aim_local import VisionLLM
from aim_local.server.looks import looks
from aim_local.settings import parse_setting

CLIPS = Path(aim_local.__file__).parent / "data" / "clips"
NEEDLE, TIME = CLIPS / "needle.mp4", CLIPS / "time.mp4"
QUESTION = "What appears in the middle?"
PHONE, DESKTOP = (390, 844), (1366, 768)
STAGES = ("decode_video", "preprocess", "vision", "merge", "prefill", "importance", "ttft")
SECONDS = 20  # for what happens within milliseconds, on a machine that may be busy
expect.set_options(timeout=SECONDS * 1000)

# gives a file to the page as a hand does: by dropping it, or by pasting
GIVE = """([type, name, mime, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: mime }));
  const given = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(type === "paste" ? new ClipboardEvent(type, { ...given, clipboardData: data })
    : new DragEvent(type, { ...given, dataTransfer: data }));
}"""


@pytest.fixture(scope="module")
def service() -> Iterator[PageService]:
    """With counts, times and looks of the bundled model's own answer to QUESTION."""
    with VisionLLM.load() as llm:
        answer = llm.generate(QUESTION, [NEEDLE], parse_setting("paper"))
    stats = answer.stats
    usage = {
        "prompt_tokens": stats.n_prompt,
        "completion_tokens": stats.n_generated,
        "prompt_tokens_details": {"visual_tokens_full": stats.n_visual_full, "visual_tokens": stats.n_visual},
    }
    timings = {f"{name}_ms": getattr(stats, f"{name}_ms") for name in STAGES}
    with PageService(looks(answer.trace), usage, {**timings, "queue_ms": 40.0, "ttft_ms": 200.0}) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    """One tab for a file's tests, one after the other: a new one takes longer than most of them."""
    flags = [flag for flag in _FLAGS if flag not in ("--headless", "--remote-debugging-pipe")]  # playwright's own
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser(), args=flags)
        page = opened.new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
        page.set_default_timeout(SECONDS * 1000)
        yield page
        opened.close()


class Serves(Protocol):
    url: str


class Tab:
    """The page, open. messages: what the console got; requests: addresses that are not the service's own.

    media: what `emulate_media` takes, such as color_scheme="dark".
    """

    def __init__(self, page: Page, service: Serves, size: tuple[int, int] = DESKTOP, **media: Any) -> None:
        if isinstance(service, PageService):
            service.fresh()
        self.page, self.service = page, service
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(**{"color_scheme": "light", "reduced_motion": "no-preference", **media})
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._listeners: dict[str, Any] = {
            "console": self._said,
            "pageerror": lambda error: self.messages.append(str(error)),
            "request": self._asked,
        }
        for name, listener in self._listeners.items():
            page.on(name, listener)

    def _said(self, message: ConsoleMessage) -> None:
        self.messages.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.service.url}/", "blob:", "data:")):
            self.requests.append(request.url)

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        for name, listener in self._listeners.items():
            self.page.remove_listener(name, listener)
        self.page.context.set_offline(False)
        if self.page.url.startswith(self.service.url):
            self.page.evaluate("sessionStorage.clear()")
        self.page.goto("about:blank")

    def open(self) -> Tab:
        self.page.goto(self.service.url)
        expect(self("#state")).to_have_text("ready")
        return self

    def __call__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def give(self, path: Path, how: str = "drop", mime: str = "video/mp4") -> None:
        self.page.evaluate(GIVE, [how, path.name, mime, base64.b64encode(path.read_bytes()).decode()])

    def clip(self, path: Path = NEEDLE) -> Tab:
        """A clip that is uploaded and can be played."""
        n = self(".card").count()
        self.give(path)
        expect(self(".card.there")).to_have_count(n + 1)
        expect(self("#at")).to_contain_text("/ 0:02")
        return self

    def ask(self, question: str) -> None:
        self("#question").fill(question)
        self("#question").press("Enter")

    def answered(self, question: str = QUESTION) -> Tab:
        n = self(".evidence").count()
        self.ask(question)
        expect(self(".evidence")).to_have_count(n + 1)
        return self

    @property
    def at(self) -> float:
        """Seconds of the player."""
        return float(self.page.evaluate("document.getElementById('video').currentTime"))

    def check_quiet(self) -> None:
        assert self.messages == []
        assert self.requests == []

    def check_access(self) -> None:
        """axe-core finds nothing serious, and the page is no wider than the screen."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not grave, "\n".join(f"{v['id']}: {v['help']}: {[n['html'][:200] for n in v['nodes']]}" for v in grave)
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.page.viewport_size["width"], f"{wide} px wide"
