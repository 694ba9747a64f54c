"""Names that a client chooses: in whatever field they come, no log, no number of /metrics and no listing obeys them.

Headers, methods, paths and queries go over a bare socket, for clients' libraries refuse to send most of them.
"""

from __future__ import annotations

import io
import json
import re
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import server_case
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from server_case import PATIENCE_S, HeldLLM, Running

HOSTILE = {
    "controls": "a\x1b[31mred\x1b]0;title\x07\0b",
    "hidden": "a\x9b2J\x9d0;x\x9c\u202egnp.exe\u2066\u200b\ufeff\u00ad\u2028b",
    "lines": 'a"} 1\r\nX-Injected: yes\r\naim_local_internal_errors_total 99\r\n\r\n\ny{a="',
    "half": "a\udc9b\ud800b",
}
PLACES = {
    "method": "{} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "path": "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "model": "GET /v1/models/{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "file": "GET /v1/files/{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "query": "GET /v1/files?after={0}&order={0}&purpose={0} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "version": "GET / HTTP/1.1{}\r\nHost: localhost\r\n\r\n",
    "host": "GET / HTTP/1.1\r\nHost: {}\r\n\r\n",
    "host of a kind": "GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n",
    **{
        name: "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + name + ": {}\r\n\r\n"
        for name in ("Origin", "Authorization", "User-Agent", "X-Request-Id", "X-Forwarded-For", "Cookie", "Referer")
    },
    "etag": "GET /page/app.js HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {}\r\n\r\n",
    "type": "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: 0\r\n\r\n",
    "length": "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
    "form": "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={}\r\n"
    "Content-Length: 0\r\n\r\n",
    "name of a header": "GET / HTTP/1.1\r\nHost: localhost\r\n{}: x\r\n\r\n",
}
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="%b"; filename="%b.png"\r\n\r\n%b\r\n'
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n%b\r\n--b--\r\n'
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("media")
    with server_case.running(HeldLLM(free=True).load, media_path=folder) as running:
        running.post({"messages": [{"role": "user", "content": "What?"}]})  # so that every stage has its numbers
        yield running


@pytest.fixture(scope="module")
def client(found: Running) -> Iterator[httpx.Client]:
    """One for all: each new one reads the system's certificates."""
    with httpx.Client(base_url=found.url, timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_obeys(found: Running, client: httpx.Client) -> Iterator[None]:
    """Behind every test: lines of the log can be shown, and /metrics has the series that it always has."""
    before = series(client)
    found.log.clear()
    yield
    client.get("/settled")
    found.wait(lambda: any("/settled" in line for line in found.log))
    assert [line for line in found.log if not clean(line) or len(line) > 400] == []
    new = series(client) - before
    assert {values for _, values in new} <= known_values(), "a label that a client chose"


def series(client: httpx.Client) -> set[tuple[str, tuple[str, ...]]]:
    text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    assert all(clean(line) for line in text.splitlines())
    return {(s.name, tuple(v for k, v in s.labels.items() if k != "le")) for family in families for s in family.samples}


def known_values() -> set[tuple[str, ...]]:
    """Of labels: methods, routes and statuses, each one of a few."""
    methods = ("GET", "POST", "HEAD", "other")
    routes = ("/", "/page/{name:path}", "/v1/models/{model:path}", "/v1/models", "/v1/files", "/v1/files/{id}",
              "/v1/files/{id}/content", "/v1/chat/completions", "/metrics", "other")  # fmt: skip
    statuses = map(str, (200, 304, *range(400, 416), 422, 499))
    whole = {(m, r, s) for s in statuses for m in methods for r in routes}
    return whole | {(r,) for r in routes}


def clean(text: str) -> bool:
    """Whether no character of it moves a cursor, turns a line or hides."""
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


def checked(head: bytes, body: bytes) -> None:
    """An answer: its head is a head, its JSON is one clear text wherever it quotes."""
    lines = head.decode("latin-1").split("\r\n")
    assert all(clean(line) for line in lines), lines
    assert not any(line.lower().startswith("x-injected") for line in lines)
    if b"application/json" not in head:
        return
    assert clean(body.decode()), body
    for text in texts(json.loads(body)):
        assert clean(text), text
        assert len(text) < 800


def texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, inner in value.items():
                yield key
                yield from texts(inner)
        case list():
            for inner in value:
                yield from texts(inner)


def asked_for(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    answer = client.post("/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": "application/json"})
    checked(b"application/json", answer.content)
    return answer


def sent(found: Running, request: bytes) -> None:
    host, port = found.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 ") or not answer, answer
    checked(*answer.split(b"\r\n\r\n", 1) if answer else (b"", b""))


@pytest.mark.parametrize("place", PLACES)
def test_in_the_head_of_a_request(found: Running, place: str) -> None:
    """As bytes, in UTF-8 and in Latin-1, and as a URL writes them."""
    for name, value in HOSTILE.items():
        utf_8 = value.encode("utf-8", "surrogatepass")
        forms = {quote(utf_8).encode()}
        if name != "lines":  # as bytes they are the end of the head
            forms |= {utf_8, value.encode("latin-1", "ignore")}
        for written in forms:
            before, *after = PLACES[place].replace("{0}", "{}").split("{}")
            sent(found, before.encode() + b"".join(written + part.encode() for part in after))


@pytest.mark.parametrize("name", HOSTILE)
def test_in_a_chat(client: httpx.Client, name: str) -> None:
    value = HOSTILE[name]
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 2}
    part = {"type": "video_url", "video_url": {"url": f"file://{quote(value.encode('utf-8', 'surrogatepass'))}.mp4"}}
    bodies = [
        {**asked, "model": value}, {**asked, value: 1}, {**asked, "user": value, "metadata": {value: value}},
        {**asked, "stop": value}, {**asked, "pick": value}, {**asked, "visual_tokens": value},
        {**asked, "response_format": {"type": value}}, {**asked, "json_schema": {"$ref": value}},
        {**asked, "grammar": value}, {"messages": [{"role": value, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": value}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", value: 1}]}]},
        {"messages": [{"role": "user", "content": [part]}]},
        {"messages": [{"role": "user", "content": [{**part, "video_url": {"url": value}}]}]},
        {"messages": [{"role": "user", "content": [{**part, "video_url": {"url": f"http://{value}/x.mp4"}}]}]},
        {"messages": [{"role": "user", "content": [{**part, "video_url": {"url": f"data:{value};base64,AA=="}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": value, "filename": value}}]}]},
    ]  # fmt: skip
    for body in bodies:
        answer = asked_for(client, body)
        assert answer.status_code < 500 or answer.status_code in (503, 504), (answer.status_code, body, answer.text)


@pytest.mark.parametrize("name", HOSTILE)
def test_as_the_name_of_an_upload(client: httpx.Client, name: str) -> None:
    """Of the file, its field and its purpose; and the picture that was taken is listed by a name that can be shown."""
    value = HOSTILE[name].encode("utf-8", "surrogatepass").replace(b'"', b"%22").replace(b"\r\n", b"\n")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    data = picture.getvalue()
    fields = ((b"file", value, data, b"vision"), (value, b"x", data, b"vision"), (b"file", b"x", data, value))
    for field in fields:
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = client.post("/v1/files", content=FORM % field, headers=kind)
        assert answer.status_code < 500
        checked(b"application/json", answer.content)
        if answer.status_code == 200:
            content = client.get(f"/v1/files/{answer.json()['id']}/content")
            assert content.content == data
            assert all(clean(f"{name}{text}") for name, text in content.headers.items())
    checked(b"application/json", client.get("/v1/files").content)


@pytest.mark.parametrize("name", HOSTILE)
def test_of_files_in_the_media_folder(found: Running, client: httpx.Client, name: str) -> None:
    """They are there, under such names, and are no media: the refusal names them in characters that can be seen."""
    folder = found.service._sources.folder
    assert folder is not None
    value = re.sub("[\0/\ud800]", "", HOSTILE[name])  # which no file's name can have
    Path(folder._root, f"{value}.mp4").write_bytes(b"no video")
    for url in (f"file://{value}.mp4", f"file://{quote(value.encode('utf-8', 'surrogateescape'))}.mp4"):
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What?"}]
        assert 400 <= asked_for(client, {"messages": [{"role": "user", "content": content}]}).status_code < 500
