"""A headless Chromium for tests: opens a local page at a given size and reports what it said and asked for.

Talks the DevTools protocol over a pair of pipes (--remote-debugging-pipe), so it needs nothing but the browser. Device
emulation gives viewports narrower than a headless window can be. Leaves to the tests what a page should do.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

PHONE, DESKTOP = (360, 740), (1366, 900)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--remote-debugging-pipe",
)


def browser() -> str | None:
    """Path of an installed Chromium, None without one."""
    return next((found for found in map(shutil.which, _NAMES) if found), None)


class Page:
    """A browser with one page. messages: console, exceptions and log entries; requests: every address asked for."""

    def __init__(self, profile: Path) -> None:
        found = browser()
        assert found, "no Chromium; ask browser() first"
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4
        command = ["bash", "-c", f'exec "$@" 3<&{there} 4>&{back}', "chromium", found, *_FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(there, back),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._buffer, self._n, self._session, self._loaded = b"", 0, "", False
        self._attach()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, path: Path, size: tuple[int, int], dark: bool = False, scripts: bool = True) -> None:
        """Loads a file as a device of that size (narrow ones are phones); messages and requests start anew."""
        self.messages, self.requests, self._loaded = [], [], False
        width, height = size
        mobile = width < 600
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._until(lambda: self._loaded)
        self.settle()

    def evaluate(self, script: str) -> Any:
        """Value of a JavaScript expression in the page; an exception in it is an AssertionError here."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self, seconds: float = 0.2) -> None:
        """Lets late messages and requests come in."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._receive(left)

    def screenshot(self, path: Path, full: bool = True) -> None:
        """PNG of the whole page, or of what the screen shows."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._n += 1
        message = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answers: list[dict[str, Any]] = []
        self._until(lambda: bool(answers), {self._n: answers})
        assert "error" not in answers[0], f"{method}: {answers[0]['error']}"
        result: dict[str, Any] = answers[0]["result"]
        return result

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _until(
        self, done: Callable[[], bool], waiting: dict[int, list[dict[str, Any]]] | None = None, seconds: float = 60
    ) -> None:
        end = time.monotonic() + seconds
        while not done():
            left = end - time.monotonic()
            assert left > 0, f"Chromium did not answer within {seconds} s"
            self._receive(left, waiting)

    def _receive(self, seconds: float, waiting: dict[int, list[dict[str, Any]]] | None = None) -> None:
        """Takes what came within that time; answers go to `waiting`, events to _event."""
        if not select.select([self._in], [], [], seconds)[0]:
            return
        data = os.read(self._in, 1 << 20)
        assert data, "Chromium ended"
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        for text in whole:
            message = json.loads(text)
            if message.get("id") in (waiting or {}):
                (waiting or {})[message["id"]].append(message)
            elif "method" in message:
                self._event(message["method"], message["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(f"console.{params['type']}: {[arg.get('value') for arg in params['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.messages.append(f"exception: {params['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.messages.append(f"log: {params['entry']['level']} {params['entry']['text']}")


def check_quiet_and_narrow(page: Page, path: Path, size: tuple[int, int], dark: bool = False) -> None:
    """What every page of ours keeps to: says nothing, asks for nothing but itself, and is no wider than the screen."""
    page.open(path, size, dark)
    assert not page.messages, f"{path.name} says {page.messages}"
    others = [url for url in page.requests if url != path.resolve().as_uri() and not url.startswith("data:")]
    assert not others, f"{path.name} asks for {others}"
    assert path.resolve().as_uri() in page.requests
    # not innerWidth: a phone zooms out to a wider page, and innerWidth grows with it
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= size[0], f"{path.name} is {wide} px wide on a screen of {size[0]}"
