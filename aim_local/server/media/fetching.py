"""A connection that is never waited for longer than its request may take, and that a wish to stop ends.

Knows sockets. Which address may be connected to is addresses.py's.
"""

from __future__ import annotations

import errno
import io
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..failures import RequestError
from .words import OPTIONS

STEP = 0.1  # seconds between two looks at the clock and at a wish to stop


@dataclass(frozen=True)
class Patience:
    """until: of time.monotonic(). seconds: that it was at the beginning. check: raises where work is to stop."""

    until: float
    seconds: float
    check: Callable[[], None]

    @classmethod
    def of(cls, seconds: float, check: Callable[[], None]) -> Patience:
        return cls(time.monotonic() + seconds, seconds, check)

    def step(self) -> float:
        """How long to wait until the next look. Raises RequestError where the time is over."""
        self.check()
        left = self.until - time.monotonic()
        if left <= 0:
            raise RequestError(
                400, f"the address gave no file within {self.seconds:g} s; upload the file, or start the server"
                f" with a larger {OPTIONS['fetch_s']}", code="fetch_timeout",
            )  # fmt: skip
        return min(STEP, left)


class PatientSocket:
    """What http.client needs of a socket; it waits as long as `patience` says. Closing is up to the socket's owner."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock, self._patience = sock, patience

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(self._patience.step())
            try:
                rest = rest[self._sock.send(rest) :]
            except TimeoutError:
                continue

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._patience), 2**16)

    def close(self) -> None:
        pass


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock, self._patience = sock, patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._sock.settimeout(self._patience.step())
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                continue


def connect(address: str, port: int, patience: Patience, seconds: float) -> socket.socket:
    """A TCP connection to an IP address, given as text, within so many seconds. Raises OSError, RequestError."""
    until = time.monotonic() + seconds
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        state = sock.connect_ex((address, port))
        if state in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            with selectors.DefaultSelector() as ready:
                ready.register(sock, selectors.EVENT_WRITE)
                while not ready.select(patience.step()):
                    if time.monotonic() > until:
                        raise TimeoutError(errno.ETIMEDOUT, "it does not answer")
            state = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if state:
            raise OSError(state, errno.errorcode.get(state, "no connection"))
    except BaseException:
        sock.close()
        raise
    return sock


def secure(sock: socket.socket, host: str, context: ssl.SSLContext, patience: Patience) -> ssl.SSLSocket:
    """TLS with `host`, its certificate checked. Takes the socket over. Raises OSError, RequestError."""
    wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            wrapped.settimeout(patience.step())
            try:
                wrapped.do_handshake()
                return wrapped
            except TimeoutError:
                continue
    except BaseException:
        wrapped.close()
        raise
