"""The first and the last to see a request: guards, headers of every answer, errors in one form, a line in the log.

Plain ASGI around the application. Knows no route.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..failures import RequestError, internal_error, stopping
from ..media.words import printable
from ..metrics import Metrics
from .guard import Guard
from .reply import encoded

RECORD = "aim_local.record"
_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@dataclass
class Record:
    """What is known of a request while it is answered. note: for the log, behind the status.

    owner: the account where it is that of an API key, "" without keys.
    """

    account: str = ""
    owner: str = ""
    note: str = ""
    status: int = 0


def record_of(scope: Scope) -> Record:
    found = scope[RECORD]
    assert isinstance(found, Record), "put there by Front"
    return found


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return encoded(content)


def error_response(e: RequestError) -> Response:
    return JsonResponse(e.body(), e.status, e.headers)


def fault_line(e: BaseException) -> str:
    """For the log: one line, whatever of a request stands in the error."""
    return f"error: {type(e).__name__}: {printable(str(e))}"


class Front:
    """say: takes a line for the log, None for silence. debug: tracebacks of our own faults go there too."""

    def __init__(
        self, app: ASGIApp, guard: Guard, metrics: Metrics, say: Callable[[str], None] | None, *, debug: bool = False
    ) -> None:
        inner: ASGIApp = _KeyCheck(app, guard)
        if guard.cors:
            inner = CORSMiddleware(
                inner,
                allow_origins=list(guard.cors),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["x-request-id", "retry-after"],
            )
        self._app, self._guard, self._metrics, self._say, self._debug = inner, guard, metrics, say, debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, record = time.monotonic(), Record()
        scope[RECORD] = record

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._guard.check_host(headers.get("host", ""))
            self._guard.check_origin(headers.get("origin"), headers.get("host", ""))
            await self._app(scope, receive, watched)
        except RequestError as e:
            await self._fail(e, record, scope, receive, watched)
        except asyncio.CancelledError:  # the server stops, and this was still being read
            await self._fail(stopping(), record, scope, receive, watched)
            raise
        except Exception as e:
            self._metrics.failed()
            self._tell_fault(e)
            await self._fail(internal_error(e), record, scope, receive, watched)
        finally:
            self._note(scope, record, time.monotonic() - start)

    async def _fail(self, e: RequestError, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        if not record.status:
            await error_response(e)(scope, receive, send)

    def _tell_fault(self, e: Exception) -> None:
        if self._say:
            for line in traceback.format_exception(e) if self._debug else [fault_line(e)]:
                self._say(line.rstrip())

    def _note(self, scope: Scope, record: Record, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "other")  # not the path: clients could make any number of them
        self._metrics.request(method, route, record.status or 499, seconds)
        if self._say and not _is_noise(scope, record.status):
            path = scope["raw_path"].decode("ascii", "replace")[:200]  # encoded: no space, so no status of its own
            note = f", {record.note}" if record.note else ""
            self._say(f"{method} {path} {record.status or 499} {seconds * 1000:.0f} ms{note}")


def _is_noise(scope: Scope, status: int) -> bool:
    """What comes often and says nothing in a log: the page's files, and probes that found what they wanted."""
    return status < 400 and scope["method"] in ("GET", "HEAD") and scope["path"].startswith(("/page/", "/health"))


class _KeyCheck:
    """Inside CORS: a preflight has no key, and a page has to read why it was refused."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            address = scope["client"][0] if scope.get("client") else "local"
            try:
                given = Headers(scope=scope).get("authorization")
                record = record_of(scope)
                record.account = self._guard.account(scope["path"], given, address)
                record.owner = record.account if self._guard.keys else ""
            except RequestError as e:
                await error_response(e)(scope, receive, send)
                return
        await self._app(scope, receive, send)
