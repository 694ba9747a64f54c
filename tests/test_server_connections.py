"""Connections that say nothing, read nothing, or ask too early: they hold up nobody."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from select import select

import pytest
import uvicorn
from server_case import PATIENCE_S, HeldLLM, Running, question, running
from starlette.types import Receive, Scope, Send

from aim_local.server.http import connections


@pytest.fixture
def held() -> Iterator[tuple[HeldLLM, Running]]:
    llm = HeldLLM()
    with running(llm.load) as service:
        yield llm, service


def connected(service: Running, sent: bytes = b"") -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    found = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    found.sendall(sent)
    return found


def request(method: str = "POST", path: str = "/v1/chat/completions", **body: object) -> bytes:
    data = json.dumps({"messages": question("?"), **body}).encode() if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def is_ended(client: socket.socket) -> bool:
    """Waits for its end."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_asked_ahead_and_hangs_up_ends_its_work(held: tuple[HeldLLM, Running], stream: bool) -> None:
    llm, service = held
    client = connected(service, request(stream=stream))
    call = llm.next_call()
    client.sendall(request("GET", "/health"))
    client.close()
    assert call.stopped.wait(PATIENCE_S)


def test_requests_sent_ahead_are_answered_in_their_order_and_bounded(held: tuple[HeldLLM, Running]) -> None:
    llm, service = held
    with connected(service, request() + request("GET", "/health")) as client:
        llm.next_call().release.set()
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 2 or b'"working"' not in got:
            got += client.recv(2**16)
        assert got.index(b"word end") < got.index(b'"working"')
    with connected(service, request()) as greedy:
        call = llm.next_call()
        with suppress(ConnectionError):
            while not call.stopped.is_set():
                greedy.sendall(request("GET", "/health") * 100)
        assert call.stopped.wait(PATIENCE_S)


@pytest.mark.thorough
def test_a_head_that_does_not_come_ends_the_connection(
    held: tuple[HeldLLM, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    for sent in (b"", b"GET /health HTTP/1.1\r\nHost: loc", request("GET", "/health") + b"GET /he"):
        with connected(held[1], sent) as client:
            while client.recv(2**16):
                pass


def test_many_silent_connections_leave_room(held: tuple[HeldLLM, Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 8)
    llm, service = held
    with ExitStack() as stack:
        asking = stack.enter_context(connected(service, request()))
        call = llm.next_call()
        silent = [stack.enter_context(connected(service)) for _ in range(40)]
        assert service.get("/health").status_code == 200
        assert all(is_ended(client) for client in silent[:32])
        call.release.set()
        assert asking.recv(2**16).startswith(b"HTTP/1.1 200 OK")


SLOW = {
    "JSON": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{",
    "an upload": b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 1000\r\n\r\n--b\r\n",
    "chunks": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{",
}


@pytest.mark.parametrize("kind", SLOW)
def test_bodies_that_do_not_come_leave_room(
    held: tuple[HeldLLM, Running], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(connections, "MOST", 8)
    llm, service = held
    with ExitStack() as stack:
        asking = stack.enter_context(connected(service, request()))
        call = llm.next_call()
        slow = [stack.enter_context(connected(service, SLOW[kind])) for _ in range(40)]
        for _ in range(3):
            assert service.get("/health").status_code == 200
        assert sum(bool(select([client], [], [], 0)[0]) for client in slow) >= 32
        call.release.set()
        assert asking.recv(2**16).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("soft", [32, 64, 256])
def test_connections_leave_files_to_open(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    monkeypatch.setattr(connections, "n_files", lambda: soft)
    held_before = 12
    config = connections.server_config(lambda: None)
    assert held_before + connections.most_connections() + config.backlog < soft
    assert connections.most_connections() > 2


@pytest.mark.parametrize(
    "sent",
    [
        b"HELLO\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1" + bytes(160),  # TLS
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000,
        request()[:-30].split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["a word", "TLS", "no host", "NUL", "a length below 0", "two lengths", "an endless head", "no chunk"],
)
def test_what_is_no_http_is_told_as_every_error_is(held: tuple[HeldLLM, Running], sent: bytes) -> None:
    with connected(held[1], sent) as client:
        got = b""
        with suppress(ConnectionResetError):
            while data := client.recv(2**16):
                got += data
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in head
    assert json.loads(body)["error"]["code"] == "bad_http"


@pytest.mark.parametrize("n_bytes", [30_000, 45_000, 60_000])
def test_the_end_of_an_answer_that_is_not_read_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, n_bytes: int
) -> None:
    """Guards against what waits in the server's own buffer, small as it is: its connection was kept without end."""
    monkeypatch.setattr(connections, "STUCK_S", 0.2)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(n_bytes)})

    server = uvicorn.Server(connections.server_config(answer))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as small as the system lets it be
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        client.connect(listener.getsockname())
        client.sendall(request("GET", "/"))
        assert client.recv(1) == b"H"
        end = time.monotonic() + PATIENCE_S / 3
        while server.server_state.connections and time.monotonic() < end:
            time.sleep(0.01)
        assert not server.server_state.connections
        server.should_exit = True
        thread.join(PATIENCE_S)


def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STUCK_S", 0.2)
    gone = threading.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        sending = asyncio.ensure_future(pour(send))
        assert (await receive())["type"] == "http.disconnect"
        gone.set()
        sending.cancel()

    async def pour(send: Send) -> None:
        while True:
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})

    server = uvicorn.Server(connections.server_config(endless))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=PATIENCE_S) as client:
            client.sendall(request("GET", "/"))
            assert gone.wait(PATIENCE_S)
        server.should_exit = True
        thread.join(PATIENCE_S)
