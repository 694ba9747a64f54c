"""The page skeleton: nothing in it can break out of its place, and its policy lets nothing in."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from aim_local.lab.html import embed_json, page

NASTY = '</script><script>alert(1)</script> <!-- & "quotes" \' \u2028 é'


class Elements(HTMLParser):
    """Start tags with their attributes, and the text inside each script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def test_embedded_json_comes_back_and_stays_one_element() -> None:
    block = embed_json("data", {"text": NASTY, "n": [1, 2.5, None]})
    found = Elements(block)
    assert [tag for tag, _ in found.tags] == ["script"]
    assert json.loads(found.scripts[0]) == {"text": NASTY, "n": [1, 2.5, None]}
    assert not re.search("[<>&]", found.scripts[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        embed_json("data", [value])


def test_title_is_text() -> None:
    assert "<title>a &lt;b&gt; &amp; c</title>" in page("a <b> & c", "<p>x</p>")


def test_policy_forbids_all_but_inline() -> None:
    text = page("t", "<p>x</p>", css="p { color: red; }", script="let a = 1;")
    metas = [attrs for tag, attrs in Elements(text).tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert len(metas) == 1
    policy = dict(part.split(maxsplit=1) for part in str(metas[0]["content"]).split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy["style-src"], policy["script-src"]} == {"'unsafe-inline'"}
    assert policy["img-src"] == "data:"
    assert not re.search(r"https?://|@import|url\(", text)


@pytest.mark.parametrize("part", [{"css": "</STYLE>"}, {"script": 'let a = "</script>"'}, {"script": "<!-- x"}])
def test_inline_text_that_ends_its_element_is_refused(part: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot stand in it"):
        page("t", "", **part)
