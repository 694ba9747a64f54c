"""Connections to the service, kept free of clients that hold one and do nothing with it.

A request's head has to come in time, an answer has to be read, and there are only so many connections: where all are
taken, the one that has waited longest without a request makes room, then the one whose client is the slowest to send
its request or to read its answer. Knows uvicorn's protocol; what a request holds, and how long its body may take, is
for others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..failures import RequestError
from .reply import encoded

if sys.platform != "win32":  # there, a process may have any number of files
    import resource

HEAD_S = 15.0  # from a connection's beginning, or a further request's first byte, to the end of the head
STUCK_S = 60.0  # without room for more of an answer, as its client does not read
MOST = 400  # connections, where systems let a process have 1024 files; media need some
_AHEAD = 2**16  # bytes of further requests that are taken while one is answered


def server_config(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn is run."""
    return uvicorn.Config(
        app, loop="asyncio", http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=5, backlog=min(128, n_files() // 8),
    )  # fmt: skip


def n_files() -> int:
    """That the system lets this process have open at a time."""
    if sys.platform == "win32":
        return 2**16
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**16 if soft == resource.RLIM_INFINITY else soft


def most_connections() -> int:
    return max(2, min(MOST, n_files() * 2 // 5))


class Connection(H11Protocol):
    """began: in the loop's time. n_received: bytes."""

    began = 0.0
    n_received = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head, self._stuck = _Timer(self.loop, self._abort), _Timer(self.loop, self._abort)

    def _abort(self) -> None:
        self.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # what is not read is told by pause_writing, however little it is
        self.began = self.loop.time()
        self._make_room()
        self._head.start(HEAD_S)

    @property
    def waits_for_client(self) -> bool:
        """Whether the rest of a request has to come, or what was answered is to be read."""
        return self.flow.write_paused or (not self.is_idle and self.cycle.more_body)

    @property
    def pace(self) -> float:
        """Bytes a second that came."""
        return self.n_received / max(1e-9, self.loop.time() - self.began)

    def _make_room(self) -> None:
        """Ends one connection where there are too many; it is this one where all others are being answered."""
        here = [other for other in self.connections if isinstance(other, Connection) and not other.is_gone]
        if len(here) <= most_connections():
            return
        closing = [other for other in here if other.transport.is_closing()]
        idle = [other for other in here if other.is_idle and other is not self]
        if closing or idle:
            leaves = min(closing or idle, key=lambda other: other.began)
        else:
            slow = [other for other in here if other.waits_for_client]
            leaves = min(slow, key=lambda other: other.pace, default=self)
        leaves.transport.abort()

    @property
    def is_gone(self) -> bool:
        """Whether it is closed, and its client has all that was sent."""
        return self.transport.is_closing() and not self.transport.get_write_buffer_size()

    def data_received(self, data: bytes) -> None:
        self.n_received += len(data)
        super().data_received(data)
        if not self.is_idle:
            self._head.stop()
        elif not self._head.runs:
            self._head.start(HEAD_S)

    def handle_events(self) -> None:
        super().handle_events()
        if not self.is_idle and not self.cycle.more_body and self.flow.read_paused:
            # a further request came early: who does not read does not notice that the client hangs up
            if len(self.conn.trailing_data[0]) > _AHEAD:
                self.transport.abort()
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # in the middle of an answer
            self.transport.abort()
            return
        body = encoded(RequestError(400, "this is no HTTP request that can be read", code="bad_http").body())
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def on_response_complete(self) -> None:
        self._head.stop()  # uvicorn's own time for the next request's first byte begins
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck.start(STUCK_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._stuck.stop()
        super().connection_lost(exc)


class _Timer:
    def __init__(self, loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
        self._loop, self._action = loop, action
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        return self._handle is not None

    def start(self, seconds: float) -> None:
        self.stop()
        self._handle = self._loop.call_later(seconds, self._action)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
