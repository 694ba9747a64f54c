"""A web server on loopback that says what a test wants, byte by byte, and the one way to let the service ask it.

Knows sockets. The service refuses loopback by itself: `loopback()` is a network that allows 127.0.0.1 and nothing else,
and is passed by the test, never read from the environment.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from aim_local.server.media.addresses import IP, Network

Reply = Callable[[socket.socket, bytes], None]  # gets the connection and the request's head


class Web:
    """Answers every connection by `reply`, in a thread. requests: their heads, as they came. port: where it listens."""

    def __init__(self, reply: Reply, context: ssl.SSLContext | None = None) -> None:
        self._reply, self._context = reply, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.gone = threading.Event()  # the client of the last connection hung up while it was answered
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.closing(connection):
            connection.settimeout(30)
            try:
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (data := connection.recv(65536)):
                        return
                    head += data
                self.requests.append(head)
                self._reply(connection, head)
            except OSError:
                self.gone.set()
            finally:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Reply:
    """The same to everybody; its length is said unless `headers` say something of it."""
    fields = {"Content_Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return lambda connection, head: connection.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)


def raw(*pieces: bytes) -> Reply:
    def reply(connection: socket.socket, head: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return reply


def for_ever(head: bytes, piece: bytes, wait: float = 0.0) -> Reply:
    """Says `piece` again and again, every `wait` seconds, until the client is gone."""

    def reply(connection: socket.socket, request: bytes) -> None:
        connection.sendall(head)
        pause = threading.Event()
        while True:
            connection.sendall(piece)
            pause.wait(wait)

    return reply


def loopback(allow: Callable[[IP], bool] = lambda ip: ip == ipaddress.ip_address("127.0.0.1"),
             context: ssl.SSLContext | None = None, **names: str) -> Network:  # fmt: skip
    """Every name leads to 127.0.0.1, or where `names` says (inside_example="10.0.0.1"); only 127.0.0.1 is allowed."""
    known = {name.replace("_", "."): address for name, address in names.items()}
    return Network(allow, lambda host, port: [known.get(host, "127.0.0.1")], context)
