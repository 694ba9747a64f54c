"""RPC servers as processes on loopback, what stands between them and a client, and servers that are none."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

import pytest
from cli_case import MAIN

from aim_local.native import rpc

needs_rpc = pytest.mark.skipif(not rpc.is_built(), reason="these libraries were built without RPC")


class Server:
    """`aim-local rpc-server` on a free port of this machine."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-P", "-c", MAIN, "rpc-server", "--port", "0", "--threads", "1", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert self.process.stderr
        self.first_line = self.process.stderr.readline()
        assert self.first_line.startswith("listening on "), self.first_line
        self.address = self.first_line.split()[2]
        self.lines: queue.Queue[str] = queue.Queue()  # what it says later; "" at its end
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put("")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reader.join()
        assert self.process.stderr
        self.process.stderr.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    """Addresses of two servers."""
    with Server() as first, Server() as second:
        yield first.address, second.address


@dataclass
class Relay:
    """Between a client and a server: counts bytes, and does something after so many of them.

    after: bytes to the server, over all connections. then: what to do, once; None: the line is dead from then on.
    """

    address: str
    after: int | None = None
    then: Callable[[], None] | None = None
    n_up: int = 0
    n_down: int = 0
    cut: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._target = self.address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.cut.set()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        host, port = self._target.split(":")
        with contextlib.suppress(OSError):
            while not self.cut.is_set():
                client = self._listener.accept()[0]
                server = socket.create_connection((host, int(port)))
                for connection in (client, server):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if up and self.after is not None and self.n_up + len(data) > self.after:
                    self.after = None
                    (self.then or self.close)()
                self.n_up, self.n_down = self.n_up + up * len(data), self.n_down + (not up) * len(data)
                target.sendall(data)
        for connection in (source, target):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def stranger(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of something that listens and does `answer` with the first one who connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    thread.join()
