"""The page's modules by themselves, in Chromium: times in text, and server-sent events however they are cut.

Skipped without Chromium.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import browser

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")
pytest.importorskip("fastapi")

from page_case import Tab, chromium
from page_service import PageService
from playwright.sync_api import Page

__all__ = ["chromium"]  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="no Chromium here; install it to check pages in a browser"),
]


@pytest.fixture(scope="module")
def tab(chromium: Page) -> Iterator[Tab]:
    with PageService() as service, Tab(chromium, service).open() as opened:
        yield opened


def call(tab: Tab, module: str, expression: str, *args: Any) -> Any:
    """The value of an expression over the names `m` (the module) and `a` (the arguments)."""
    return tab.page.evaluate(
        f"async (a) => {{ const m = await import('/page/{module}'); return {expression}; }}", list(args)
    )


TIMES: list[tuple[str, list[tuple[str, float, float | None]]]] = [
    ("It starts at 0:12.", [("0:12", 12, None)]),
    ("00:01:05 and 1:01:05.5", [("00:01:05", 65, None), ("1:01:05.5", 3665.5, None)]),
    ("after 12.5 s, 12,5 s and 3s", [("12.5 s", 12.5, None), ("12,5 s", 12.5, None), ("3s", 3, None)]),
    ("at 3 seconds", [("3 seconds", 3, None)]),
    ("at the 3-second mark", [("3-second", 3, None)]),
    ("at second 7 it stops", [("7", 7, None)]),
    (
        "1 min 5 s, 2 minutes and 3 seconds, 1m05s",
        [("1 min 5 s", 65, None), ("2 minutes and 3 seconds", 123, None), ("1m05s", 65, None)],
    ),
    ("0:12-0:20", [("0:12-0:20", 12, 20)]),
    ("from 0:12 to 0:20", [("0:12 to 0:20", 12, 20)]),
    ("[0:12 \u2013 1:20]", [("0:12 \u2013 1:20", 12, 80)]),
    ("2 to 5 seconds, 2-5 s, 2.5s\u20134s", [("2 to 5 seconds", 2, 5), ("2-5 s", 2, 5), ("2.5s\u20134s", 2.5, 4)]),
    ("between 2 and 5 seconds", [("2 and 5 seconds", 2, 5)]),
    ("between 0:02 and 0:05", [("0:02 and 0:05", 2, 5)]),
    ("seconds 2 to 5", [("2 to 5", 2, 5)]),
    ("at 0:02 and 0:05", [("0:02", 2, None), ("0:05", 5, None)]),
    ("0:20 to 0:12", [("0:20", 20, None), ("0:12", 12, None)]),  # not a span
    ("(0:01)\u05e9\u05dc\u05d5\u05dd 0:02", [("0:01", 1, None), ("0:02", 2, None)]),
]
NO_TIMES = [
    "ratio 16:9, 4:3",
    "10:30 am or 10:30am",
    "0:75",
    "1.2.3",
    "5 m away",
    "v0:12 and x3s",
    "http://10.0.0.1:80/ and 127.0.0.1:8080",
    "3 squares, 2 and 5 rings",
    "5 sheep, 3 sections, the 80s'",
    "12:345",
    "1.2.3",
    "5 m away",
]


def test_times(tab: Tab) -> None:
    for text, wanted in TIMES:
        found = call(tab, "times.js", "m.findTimes(a[0])", text)
        assert [(text[t["from"] : t["to"]], t["start"], t["end"]) for t in found] == wanted, text
    for text in NO_TIMES:
        assert call(tab, "times.js", "m.findTimes(a[0])", text) == [], text


def test_times_behind_the_end_are_none(tab: Tab) -> None:
    found = call(tab, "times.js", "m.findTimes('0:01, 0:05, from 0:01 to 0:09', 4)")
    assert [(t["start"], t["end"]) for t in found] == [(1, None), (1, 4)]


def test_times_are_found_in_no_time(tab: Tab) -> None:
    """No text makes the search take more than a moment: a test that hangs is the failure."""
    for text in ("1" * 20000, "1:" * 10000, "1 " * 10000, "2 to " * 5000, "seconds " + "1 to " * 5000):
        call(tab, "times.js", "m.findTimes(a[0]).length", text)


def test_written_times(tab: Tab) -> None:
    written = call(tab, "times.js", "[m.clock(65), m.clock(3665.4), m.clock(2.25, true), m.clock(59.96, true)]")
    assert written == ["1:05", "1:01:05", "0:02.2", "1:00.0"]  # as drawing/layers.py does
    assert call(tab, "times.js", "[m.spoken(61), m.spoken(2.5)]") == ["1 minute 1 second", "2.5 seconds"]
    assert call(tab, "times.js", "[84.2, 1400, 12000, 125000].map(m.duration)") == [
        "84 ms",
        "1.4 s",
        "12 s",
        "2 min 5 s",
    ]


STREAM = (
    '\ufeff: hello\r\ndata: {"a": "h\u00e9 \u05d0 \U0001f3ac"}\r\n\r\nevent: x\nid: 3\ndata:two\ndata: lines\n\n'
    "\n\ndata: a:b\r\rdata\n\nignored: 1\n\ndata: 1\r\ndata: 2\r\n\r\ndata: [DONE]\n\ndata: half"
)
EVENTS = ['{"a": "h\u00e9 \u05d0 \U0001f3ac"}', "two\nlines", "a:b", "", "1\n2", "[DONE]"]
READ = """await (async ([bytes, sizes]) => {
  const cuts = [];
  for (let at = 0, i = 0; at < bytes.length; at += sizes[i++ % sizes.length]) cuts.push([at, sizes[i % sizes.length]]);
  const stream = new ReadableStream({ start(c) {
    for (const [at, n] of cuts) c.enqueue(Uint8Array.from(bytes.slice(at, at + n)));
    c.close();
  } });
  const found = [];
  for await (const data of m.events(stream)) found.push(data);
  return found;
})(a)"""


def test_events_however_they_are_cut(tab: Tab) -> None:
    """Also in the middle of a character, of a line end, and of a byte order mark."""
    data = list(STREAM.encode())
    for sizes in ([len(data)], [1], [2], [3], [5, 1], [7, 11, 2], [13], [64]):
        assert call(tab, "sse.js", READ, data, sizes) == EVENTS, sizes
    for at in range(1, len(data)):
        assert call(tab, "sse.js", READ, data, [at, len(data)]) == EVENTS, at


def test_events_of_an_answer_are_json_again(tab: Tab) -> None:
    texts = ["line\nend", 'quote " and \\', "data: x\n\n", "\u2028\u2029", "\r"]
    stream = "".join(f"data: {json.dumps({'t': text}, ensure_ascii=False)}\n\n" for text in texts)
    found = call(tab, "sse.js", READ, list(stream.encode()), [4])
    assert [json.loads(data)["t"] for data in found] == texts


def test_nothing_was_said(tab: Tab) -> None:
    tab.check_quiet()
