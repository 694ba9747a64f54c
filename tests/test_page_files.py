"""The page's files and headers: all there, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from aim_local.server.page import CSP, files, reply


class Seen(HTMLParser):
    """Ids, addresses and what a strict policy forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href") and tag != "use" and value]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def page() -> Seen:
    seen = Seen()
    seen.feed(files()["/"][0].decode())
    return seen


def test_nothing_is_inline() -> None:
    assert page().inline == []
    assert "unsafe" not in CSP


def test_all_files_are_there_and_used() -> None:
    modules = {name: content.decode() for name, (content, _) in files().items() if name.endswith(".js")}
    imported = {f"/page/{found}" for text in modules.values() for found in re.findall(r'from "\./([\w.]+)"', text)}
    linked = {f"/{address}" for address in page().addresses if not address.startswith("#")}
    assert imported | linked | {"/"} == set(files())


def test_nothing_comes_from_elsewhere() -> None:
    for name, (content, _) in files().items():
        addresses = set(re.findall(r"[a-z]+://[^\s\"'`)>]+", content.decode())) - {"http://www.w3.org/2000/svg"}
        assert not addresses, (name, addresses)
        assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", content), name


def test_ids_are_there_once_and_found() -> None:
    ids = page().ids
    assert len(ids) == len(set(ids))
    for name, (content, _) in files().items():
        if name.endswith(".js"):
            wanted = set(re.findall(r'find\("([\w-]+)"\)', content.decode()))
            assert wanted <= set(ids), (name, wanted - set(ids))
            icons = set(re.findall(r'icon\("([\w-]+)"\)', content.decode()))
            assert {f"i-{icon}" for icon in icons} <= set(ids), (name, icons)


def test_replies() -> None:
    found = reply("/page/app.js")
    assert found is not None
    assert (found.status, found.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert found.headers["Content-Security-Policy"] == CSP
    for tag in (found.headers["ETag"], f'"x", W/{found.headers["ETag"]}'):
        again = reply("/page/app.js", tag)
        assert again is not None
        assert (again.status, again.body) == (304, b"")
    assert reply("/page/app.js", '"other"') == found
    for path in ("/page/", "/page/__init__.py", "/page/../failures.py", "/page//app.js", "/index.html"):
        assert reply(path) is None, path
