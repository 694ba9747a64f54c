"""Who may ask, and how much may come: hosts, origins, keys, types and sizes of bodies, headers of every answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from select import select
from typing import Any

import httpx
import pytest
from server_case import PATIENCE_S, HeldLLM, Running, question, running
from server_files import png

from aim_local.errors import UsageError
from aim_local.server.failures import RequestError
from aim_local.server.http import bodies
from aim_local.server.http.guard import Guard, check_exposed
from aim_local.server.limits import Limits

KEY, OTHER = "first-key-1", "second-key-2"
ASK = {"messages": question("hello")}


@pytest.fixture(scope="module")
def found() -> Iterator[Running]:
    with running(HeldLLM(free=True).load, Limits(body_bytes=100_000, file_bytes=50_000)) as service:
        yield service


@pytest.fixture(scope="module")
def keyed() -> Iterator[Running]:
    with running(HeldLLM(free=True).load, keys=[KEY, OTHER], cors=["https://app.example"]) as service:
        yield service


def error(answer: httpx.Response, status: int) -> dict[str, str]:
    """The error of an answer that has OpenAI's form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert "\n" not in found["message"]
    return dict(found)


# --- hosts and origins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "LOCALHOST"])
def test_loopback_answers_to_its_names(found: Running, host: str) -> None:
    assert found.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "192.168.1.5", "", "[::]"]
)
def test_a_foreign_host_is_refused(found: Running, host: str) -> None:
    """Guards against DNS rebinding: a page whose own name leads here."""
    for path in ("/v1/models", "/", "/health"):
        assert error(found.get(path, headers={"Host": host}), 403)["code"] == "foreign_host"


def test_beyond_loopback_without_a_key_names_are_refused_and_addresses_answer() -> None:
    guard = Guard("0.0.0.0")
    guard.check_host("192.168.1.5:8080")
    guard.check_host(f"{socket.gethostname()}:8080")
    with pytest.raises(RequestError):
        guard.check_host("evil.example")
    Guard("0.0.0.0", (KEY,)).check_host("any.example")  # a foreign page does not have the key


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://evil.example:8080"])
def test_a_foreign_origin_is_refused(found: Running, origin: str) -> None:
    answer = found.post(ASK, headers={"Origin": origin})
    assert error(answer, 403)["code"] == "foreign_origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://a]b"])
def test_an_origin_that_is_no_address_is_refused(found: Running, origin: str) -> None:
    assert error(found.get("/health", headers={"Origin": origin}), 403)["code"] == "foreign_origin"


def test_the_services_own_page_may_ask(found: Running) -> None:
    assert found.post(ASK, headers={"Origin": found.url}).status_code == 200


def test_a_named_origin_may_ask(keyed: Running) -> None:
    origin = {"Origin": "https://app.example"}
    wish = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = httpx.options(f"{keyed.base}/chat/completions", headers=wish)
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    for key, status in ((KEY, 200), ("wrong-key-9", 401)):
        answer = keyed.post(ASK, headers={**origin, "Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "https://app.example")


@pytest.mark.parametrize("origin", ["*", "app.example", "https://app.example/", "https://", "ftp://a"])
def test_an_origin_that_is_none_cannot_be_named(origin: str) -> None:
    with pytest.raises(UsageError, match="origin"):
        Guard("127.0.0.1", cors=(origin,))


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/metrics", "/openapi.json", "/nothing"])
@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
def test_without_the_right_key_nothing_is_told(keyed: Running, path: str, given: str | None) -> None:
    answer = keyed.get(path, headers={"Authorization": given} if given else {})
    assert error(answer, 401)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_each_key_opens(keyed: Running, key: str) -> None:
    assert keyed.get("/v1/models", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_health_and_the_page_need_no_key(keyed: Running) -> None:
    assert [keyed.get(path).status_code for path in ("/health", "/", "/page/app.js")] == [200, 200, 200]


@pytest.mark.parametrize("key", ["short", "with space 1", "ümlaut-key", "line\nbreak"])
def test_a_weak_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="API key"):
        Guard("127.0.0.1", (key,))


def test_beyond_loopback_it_takes_a_word() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        check_exposed(host, (), no_auth=False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "my.host"):
        with pytest.raises(UsageError, match="--no-auth"):
            check_exposed(host, (), no_auth=False)
        check_exposed(host, (KEY,), no_auth=False)
        check_exposed(host, (), no_auth=True)


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_taken(found: Running, kind: str) -> None:
    """What a page elsewhere can send without being asked for is none of our requests."""
    answer = found.post(None, content=json.dumps(ASK).encode(), headers={"Content-Type": kind})
    assert "application/json" in error(answer, 415)["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "messages is missing"),
        (b'{"messages": []}', "messages is"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "a"}], "temperature": 1e999}', "temperature"),
        (b'{"messages": [{"role": "user", "content": "a"}], "seed": 1' + b"0" * 100 + b"}", "seed"),
        (b"[" * 50_000, "not valid JSON"),
        (b'{"a":' * 10_000, "not valid JSON"),
    ],
)
def test_what_is_no_request_is_told_in_a_line(found: Running, body: bytes, said: str) -> None:
    answer = found.post(None, content=body, headers={"Content-Type": "application/json"})
    assert said in error(answer, 400)["message"]


def test_a_claimed_length_beyond_the_limit_is_refused_unread(found: Running) -> None:
    for claimed in (10 * 2**30, 100_001):
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with connected(found, f"{head}Content-Length: {claimed}\r\n\r\n") as connection:
            assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


def test_a_body_without_a_length_is_counted(found: Running) -> None:
    chunks = (b" " * 10_000 for _ in range(20))
    answer = httpx.post(f"{found.base}/chat/completions", content=chunks, headers={"Content-Type": "application/json"})
    assert error(answer, 413)["code"] == "body_too_large"


def test_an_upload_beyond_the_limit_is_refused(found: Running) -> None:
    answer = found_upload(found, b"x" * 2_000_000)
    assert error(answer, 413)["message"]
    assert found.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize("order", [("file", "purpose"), ("purpose", "file")])
def test_an_upload_may_have_its_fields_in_any_order(order: tuple[str, str]) -> None:
    from server_case import CLIP

    fields = {"file": ("clip.mp4", CLIP.read_bytes()), "purpose": (None, b"vision")}
    with running(HeldLLM(free=True).load) as service:
        answer = httpx.post(f"{service.base}/files", files=[(name, fields[name]) for name in order])
        assert answer.json()["purpose"] == "vision"


def found_upload(found: Running, data: bytes) -> httpx.Response:
    return httpx.post(f"{found.base}/files", files={"purpose": (None, b"vision"), "file": ("clip.mp4", data)})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"purpose": (None, b"vision")}, "no field file"),
        ({"purpose": (None, b"fine-tune"), "file": ("a.png", b"\x89PNG\r\n\x1a\n")}, "purpose"),
        ({"purpose": (None, b"vision"), "file": ("a.mp4", b"not a clip")}, "a.mp4"),
        ({"purpose": (None, b"vision"), "other": (None, b"x")}, "other"),
    ],
)
def test_a_form_that_is_none_is_refused(found: Running, files: dict[str, tuple[str | None, bytes]], said: str) -> None:
    assert said in error(httpx.post(f"{found.base}/files", files=files), 400)["message"]
    assert list(found.uploads.scratch.iterdir()) == []


@pytest.mark.parametrize(("boundary", "status"), [("X" * 71, 415), ("X" * 50_000, 415), ("", 415)])
def test_a_boundary_that_is_none_is_refused(found: Running, boundary: str, status: int) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    error(httpx.post(f"{found.base}/files", content=b"--", headers=headers, timeout=PATIENCE_S), status)


def test_a_parts_header_is_not_held_without_end(found: Running) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    form = b"--X\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 9000) for i in range(3)) + b"\r\n\r\n--X--\r\n"
    error(httpx.post(f"{found.base}/files", content=form, headers=headers, timeout=PATIENCE_S), 400)


def test_a_file_is_its_keys_own(keyed: Running) -> None:
    first, other = ({"Authorization": f"Bearer {key}"} for key in (KEY, OTHER))
    form = {"file": ("a.png", png()), "purpose": (None, "vision")}
    id = httpx.post(f"{keyed.base}/files", files=form, headers=first, timeout=PATIENCE_S).json()["id"]
    ask = {"messages": question("?", {"type": "image_url", "image_url": {"url": id}})}
    assert keyed.get("/v1/files", headers=other).json()["data"] == []
    for path in (f"/v1/files/{id}", f"/v1/files/{id}/content", f"/v1/files?after={id}"):
        error(keyed.get(path, headers=other), 404)
    error(httpx.delete(f"{keyed.base}/files/{id}", headers=other, timeout=PATIENCE_S), 404)
    assert error(keyed.post(ask, headers=other), 404)["code"] == "file_not_found"
    assert keyed.post(ask, headers=first).status_code == 200
    assert keyed.get(f"/v1/files/{id}/content", headers=first).content == png()


def test_slow_large_bodies_do_not_shut_out_small_ones(found: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_N_AT_ONCE", 0)
    assert found.post(ASK).status_code == 200
    monkeypatch.setattr(bodies, "_SMALL", 10)
    assert error(found.post(ASK), 429)["code"] == "too_many_bytes"


def test_a_large_body_that_comes_slowly_makes_room_for_one_that_does_not(
    found: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_SMALL", 10)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        slow = [
            stack.enter_context(connected(found, f'{head}Content-Length: 99000\r\n\r\n{{"a":"{"a" * 98_000}'))
            for _ in range(8)
        ]
        for _ in range(3):
            assert found.post({**ASK, "metadata": {"a": "b" * 90_000}}).status_code == 200
        ended = [client for client in slow if select([client], [], [], 0)[0]]
        assert 3 <= len(ended) < 8
        assert all(client.recv(2**16).startswith(b"HTTP/1.1 429 ") for client in ended)


def test_an_upload_that_breaks_off_leaves_nothing(found: Running) -> None:
    head = "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\nabc'
    with connected(found, f"{head}Content-Length: 5000\r\n\r\n{part}"):
        found.wait(lambda: len(list(found.uploads.scratch.iterdir())) == 1)
    found.wait(lambda: not list(found.uploads.scratch.iterdir()))


def connected(found: Running, data: str) -> socket.socket:
    host, port = found.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    connection.sendall(data.encode())
    return connection


@pytest.mark.parametrize(
    ("asked", "status", "sent"),
    [
        ("bytes=1-3", 206, slice(1, 4)), ("bytes=-3", 206, slice(-3, None)), ("bytes=5-", 206, slice(5, None)),
        ("bytes=abc", 200, slice(None)), ("bytes=5-2", 200, slice(None)), ("bytes=-", 200, slice(None)),
        ("x", 200, slice(None)), ("bytes=0-1,3-4", 200, slice(None)), (f"bytes={'9' * 3000}-", 200, slice(None)),
        ("bytes=999999-", 416, None), ("bytes=-0", 416, None), ("bytes=999999-9999999", 416, None),
    ],
)  # fmt: skip
def test_ranges_of_a_file(found: Running, asked: str, status: int, sent: slice | None) -> None:
    files = {"purpose": (None, b"vision"), "file": ("a.png", png())}
    id = httpx.post(f"{found.base}/files", files=files, timeout=PATIENCE_S).json()["id"]
    answer = found.get(f"/v1/files/{id}/content", headers={"Range": asked})
    if sent is None:
        assert error(answer, 416)["param"] == "range"
        assert answer.headers["content-range"] == f"bytes */{len(png())}"
    else:
        assert (answer.status_code, answer.content) == (status, png()[sent])


UNSEEN = "\u200b" * 100_000


@pytest.mark.parametrize(
    "more",
    [
        {UNSEEN: 1},
        {"messages": question("a", {"type": "text", "text": "a", UNSEEN: 1})},
        {"messages": question("a", {"type": "video_url", "video_url": "data:,x", UNSEEN: 1})},
        {"messages": question("a", {"type": UNSEEN})},
        {"response_format": {"type": "text", UNSEEN: 1}},
        {"visual_tokens": UNSEEN[:250]},
        {"model": UNSEEN[:250]},
    ],
)
def test_a_refusal_quotes_no_more_than_a_line(found: Running, more: dict[str, Any]) -> None:
    limits = Limits(body_bytes=2**20)
    with running(HeldLLM(free=True).load, limits) as roomy:
        answer = roomy.post({**ASK, **more})
    said = error(answer, answer.status_code)
    assert answer.status_code in (400, 404)
    assert len(said["message"]) <= 500
    assert len(said["param"] or "") <= 250


@pytest.mark.parametrize("path", ["/" + "%F3%A0%81%81" * 200, "/" + "%00" * 300, "/v1/files/file-" + "%E2%80%8B" * 400])
def test_a_refusal_of_a_path_is_a_line(found: Running, path: str) -> None:
    assert len(error(found.get(path), 404)["message"]) <= 500


# --- every answer -----------------------------------------------------------------------------------------------------


def test_unknown_paths_and_methods_have_openais_form(found: Running) -> None:
    error(found.get("/nothing"), 404)
    answer = httpx.get(f"{found.base}/chat/completions")
    assert error(answer, 405)["type"]
    assert answer.headers["allow"] == "POST"
    answer = httpx.put(f"{found.base}/files/x")
    assert error(answer, 405)["type"]
    assert answer.headers["allow"] == "DELETE, GET"
    error(found.get("/v1/files/file-0/content"), 404)
    error(found.get("/v1/files?limit=0"), 400)
    error(found.get("/page/%2e%2e/app.py"), 404)
    error(found.get("/page/../app.py"), 404)


def test_headers_say_nothing_of_the_server_and_guard_the_browser(found: Running) -> None:
    for path in ("/", "/health", "/v1/models", "/nothing"):
        headers = found.get(path).headers
        assert "server" not in headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_an_address_that_is_not_there_says_where_to_ask(found: Running) -> None:
    for path in ("/chat/completions", "/v1/responses", "/api/chat"):
        said = found.get(path).json()["error"]["message"]
        assert said.startswith(f"there is nothing at {path}; questions go to /v1/chat/completions")


def test_metrics_count(found: Running) -> None:
    found.post(ASK)
    text = found.get("/metrics").text
    assert 'aim_local_requests_total{method="POST",route="/v1/chat/completions",status="200"}' in text
    assert "aim_local_queue_length 0.0" in text
    assert 'aim_local_tokens_total{kind="answer"}' in text
    found.get("/nothing-1")
    found.get("/nothing-2")
    assert "nothing" not in found.get("/metrics").text  # any number of paths is one series
