"""Connections that say nothing, read nothing, or ask too early: they hold up nobody."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

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
