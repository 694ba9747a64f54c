"""Makes the pictures of the page in docs/ anew: `python tests/page_pictures.py ADDRESS` of a running `aim-local serve`.

The bundled model answers about its own clip, so what the pictures show is what happened.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from chromium import _FLAGS, browser
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "aim_local" / "data" / "clips" / "needle.mp4"
QUESTION = "What appears in the middle?"
SECONDS = 1.25  # where the clip stands
MAX_BYTES = 250_000


def shoot(chromium: Browser, address: str, path: Path, size: tuple[int, int], **device: Any) -> None:
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, **device)
    page = context.new_page()
    page.goto(address)
    page.set_input_files("#files", CLIP)
    expect(page.locator(".card.there")).to_be_visible()
    page.locator("#reading").evaluate("details => { details.open = true; }")
    page.locator("#share").fill("50")  # percent
    if size[0] < 960:  # where it is closed at first
        page.locator("#reading summary").click()
    page.locator("#question").fill(QUESTION)
    page.locator("#question").press("Enter")
    expect(page.locator(".evidence")).to_be_visible()
    page.locator("#video").evaluate("(video, at) => { video.currentTime = at; }", SECONDS)
    expect(page.locator("#at")).to_contain_text("0:01.2")
    page.locator("#question").blur()
    page.locator(".turn").evaluate("turn => turn.scrollIntoView()")
    page.mouse.move(0, 0)
    expect(page.locator(".frame canvas >> nth=3")).to_have_attribute("width", "224")
    page.wait_for_timeout(500)  # transitions
    page.screenshot(path=path)
    context.close()
    Image.open(path).convert("RGB").save(path, optimize=True)
    assert path.stat().st_size <= MAX_BYTES, f"{path} has {path.stat().st_size} bytes"
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def main(address: str) -> None:
    with sync_playwright() as playwright:
        flags = [flag for flag in _FLAGS if flag not in ("--headless", "--remote-debugging-pipe")]
        chromium = playwright.chromium.launch(executable_path=browser(), args=flags)
        shoot(chromium, address, ROOT / "docs" / "page-desktop.png", (1366, 900))
        phone = {"color_scheme": "dark", "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
        shoot(chromium, address, ROOT / "docs" / "page-dark-phone.png", (390, 844), **phone)
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1])
