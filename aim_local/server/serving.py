"""Running the service: the port, the model, the signals, and a clean end.

The port is open before the model is loaded, and /health says so. SIGTERM or Ctrl-C: nothing new is taken, who waits is
told, the answer in work gets a grace time; a second Ctrl-C ends at once. Knows uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from ..errors import UsageError
from .http.app import make_app
from .http.connections import server_config
from .http.front import fault_line
from .http.guard import Guard, check_exposed
from .limits import Limits
from .media.sources import Sources
from .media.uploads import Uploads
from .requests.asked import Defaults
from .service import Keeping, Service
from .threads import Threads

if TYPE_CHECKING:
    from pathlib import Path

    from ..llm import VisionLLM

__all__ = ["Keeping", "Settings", "Told", "check_exposed", "serve"]  # what the command line takes

EXIT_INTERRUPTED = 130
_POLL_S = 0.05
_N_THREADS = 16  # that read requests and heads of uploads
_LAST_S = 10.0  # for a load that goes on; a call of the native library stops sooner


@dataclass(frozen=True)
class Settings:
    """How the service is run. host, port: where it listens, port 0 takes a free one. grace: seconds for the answer in
    work when it is stopped. name: under which the model is served, None for its own. defaults: for requests that do not
    say. keys, cors: see Guard."""

    host: str = "127.0.0.1"
    port: int = 8080
    limits: Limits = field(default_factory=Limits)
    keeping: Keeping = field(default_factory=Keeping)
    grace: float = 30.0
    name: str | None = None
    defaults: Defaults = field(default_factory=Defaults)
    keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    media_path: Path | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}; give a number from 1 to 65535, or 0 for a free one")
        if self.grace < 0:
            raise UsageError(f"grace is {self.grace:g} s; give 0 or more")
        if self.defaults.frames is not None and not 1 <= self.defaults.frames <= self.limits.n_frames:
            allowed = f"from 1 to {self.limits.n_frames}, the most that a request may ask"
            raise UsageError(f"n_frames is {self.defaults.frames}; give a number {allowed}")


@dataclass(frozen=True)
class Told:
    """Where lines go. ready: the address, once there is a model. log: None for silence."""

    ready: Callable[[str, Service], None]
    log: Callable[[str], None] | None = None
    debug: bool = False


def serve(load: Callable[[], VisionLLM], settings: Settings, told: Told) -> int:
    """Serves until it is stopped; returns the exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises UsageError for an address that cannot be listened on, and whatever `load` raises.
    """
    guard = Guard(settings.host, settings.keys, settings.cors)
    with _bound(settings.host, settings.port) as listener, Uploads(settings.limits) as uploads:
        sources = Sources(settings.limits, uploads, media_path=settings.media_path, allow_http=settings.allow_http)
        run = _Run(settings, told, address(listener, settings.host))
        run.service = Service(
            load,
            sources,
            settings.limits,
            settings.keeping,
            name=settings.name,
            defaults=settings.defaults,
            on_ready=run.loaded,
            on_fault=run.fault,
        )
        app = make_app(run.service, uploads, guard, told.log, debug=told.debug)
        code = run.until_stopped(app, listener)
    if not run.is_quiet:  # a load, a call of the native library, or of one that reads files, that cannot be stopped
        sys.stdout.flush()
        os._exit(code)
    return code


def address(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens later. Raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(found[0], socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise UsageError(f"--host {host} is no address of this machine ({e}); give one such as 127.0.0.1") from e
    with listener:
        try:
            if os.name == "posix":  # elsewhere it lets another program take the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found[4])
        except (OSError, OverflowError) as e:
            reason = e.strerror if isinstance(e, OSError) else e
            raise UsageError(f"{host} port {port}: {reason}; give another --port, or 0 for a free one") from e
        yield listener


class _Run:
    """One run of the service. Signals come in the main thread, the loop is there too; the model is elsewhere."""

    service: Service

    def __init__(self, settings: Settings, told: Told, address: str) -> None:
        self._settings, self._told, self._address = settings, told, address
        self._failure: BaseException | None = None
        self._signals: list[int] = []
        self._threads = Threads(_N_THREADS, "aim-local requests")

    @property
    def is_quiet(self) -> bool:
        """After the end: whether no thread is still at work."""
        return self.service.is_quiet and self._threads.is_idle

    def until_stopped(self, app: ASGIApp, listener: socket.socket) -> int:
        for name in ("uvicorn", "asyncio"):  # they tell of clients that have gone; faults are told by Front
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False
        server = _Server(server_config(app))
        with self._listening():
            asyncio.run(self._main(server, listener))
        if self._failure is not None:
            raise self._failure
        return EXIT_INTERRUPTED if signal.SIGINT in self._signals else 0

    async def _main(self, server: uvicorn.Server, listener: socket.socket) -> None:
        asyncio.get_running_loop().set_default_executor(self._threads)
        serving = asyncio.ensure_future(server.serve([listener]))
        self.service.open()
        while not (self._signals or self._failure or serving.done()):
            await asyncio.sleep(_POLL_S)
        await self._wind_down()
        server.should_exit = True
        server.force_exit = self._is_impatient
        await serving
        end = time.monotonic() + _LAST_S
        while not self.service.close(0) and not self._is_impatient and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)
        await asyncio.to_thread(self.service.close, _LAST_S / 10)

    async def _wind_down(self) -> None:
        """Lets the answer in work come to its end, for as long as the grace time is; then cuts it."""
        self.service.stop()
        grace = self._settings.grace if self.service.about else 0.0  # while it is loaded, nothing is in work
        end = time.monotonic() + grace
        while not self.service.is_over and time.monotonic() < end and not self._is_impatient:
            await asyncio.sleep(_POLL_S)
        self.service.cut()

    @property
    def _is_impatient(self) -> bool:
        return self._signals.count(signal.SIGINT) > 1

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    # --- news of the service, in its threads ---

    def loaded(self, e: BaseException | None) -> None:
        if e is not None:
            self._failure = e
        elif not self._signals:
            self._told.ready(self._address, self.service)

    def fault(self, e: BaseException) -> None:
        if self._told.log:
            self._told.log(fault_line(e))


class _Server(uvicorn.Server):
    """Leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
