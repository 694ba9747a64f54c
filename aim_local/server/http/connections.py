"""Connections to the service, kept free of clients that hold one and do nothing with it.

A request's head has to come in time, an answer has to be read, and there are only so many connections: where all are
taken, the one that has waited longest without a request makes room. Knows uvicorn's protocol; what a request holds, and
how long its body may take, is for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 15.0  # from a connection's beginning, or a further request's first byte, to the end of the head
STUCK_S = 60.0  # without room for more of an answer, as its client does not read
MOST = 400  # connections; systems let a process have 1024 files, and media need some
_AHEAD = 2**16  # bytes of further requests that are taken while one is answered


def server_config(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn is run."""
    return uvicorn.Config(
        app, loop="asyncio", http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=5, backlog=128,
    )  # fmt: skip


class Connection(H11Protocol):
    began = 0.0

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
        self.began = self.loop.time()
        self._make_room()
        self._head.start(HEAD_S)

    def _make_room(self) -> None:
        """Ends the connection that has waited longest, which is this one where all others have requests."""
        here = [other for other in self.connections if isinstance(other, Connection) and not other.is_closing]
        if len(here) > MOST:
            min((other for other in here if other.is_idle), key=lambda other: other.began).transport.abort()

    @property
    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
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
