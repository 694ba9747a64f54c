"""The body of a request, read under a limit: of one, and of all that are held at once.

A body's claimed length is checked before anything is read, and what comes is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from ..failures import RequestError
from ..limits import MIB

_N_AT_ONCE = 4  # times the limit of one: what all requests that are being read may hold together
_SMALL = 2**18  # bytes of a body that are always read: a few large ones that come slowly must not shut out the others


class Bodies:
    """n_max: bytes of one; seconds: to read one in. Used in one event loop."""

    def __init__(self, n_max: int, seconds: float) -> None:
        self._n_max, self._seconds, self._held = n_max, seconds, 0

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """What is read by it counts until the block ends."""
        reader = Reader(self, self._n_max, self._seconds)
        try:
            yield reader
        finally:
            self._held -= reader.n

    def hold(self, n: int, *, is_small: bool = False) -> None:
        """Raises RequestError where there is too much already."""
        if not is_small and self._held + n > _N_AT_ONCE * self._n_max:
            said = "too many large requests are being read; try again in 1 s"
            raise RequestError(429, said, code="too_many_bytes", headers={"Retry-After": "1", "Connection": "close"})
        self._held += n


class Reader:
    def __init__(self, bodies: Bodies, n_max: int, seconds: float) -> None:
        self.n, self._bodies, self._n_max, self._seconds = 0, bodies, n_max, seconds

    async def json(self, request: Request) -> bytes:
        """The body of a JSON request. Raises RequestError."""
        check_json(request)
        check_length(request, self._n_max)
        data = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    if len(data) + len(chunk) > self._n_max:
                        raise too_large(self._n_max)
                    self._bodies.hold(len(chunk), is_small=len(data) + len(chunk) <= _SMALL)
                    self.n += len(chunk)
                    data += chunk
        except TimeoutError as e:
            said = f"the body did not come within {self._seconds:g} s"
            raise RequestError(408, said, headers={"Connection": "close"}) from e
        except ClientDisconnect as e:
            raise RequestError(499, "the client has gone") from e
        return bytes(data)


def check_json(request: Request) -> None:
    """A form or plain text is what a web page elsewhere may send without being asked for. Raises RequestError."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        said = f"Content-Type is {kind[:80]!r}; send the body as application/json"
        raise RequestError(415, said, headers={"Connection": "close"})
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "send the body as it is, without Content-Encoding", headers={"Connection": "close"})


def check_length(request: Request, n_max: int) -> None:
    """Raises RequestError for a claimed length that is too large, or is none."""
    claimed = request.headers.get("content-length")
    if claimed is None:
        return
    if not (claimed.isascii() and claimed.isdigit()):
        raise RequestError(400, "Content-Length is not a number", headers={"Connection": "close"})
    if int(claimed[:20]) > n_max or len(claimed) > 20:
        raise too_large(n_max)


def too_large(n_max: int) -> RequestError:
    said = f"the body is larger than {n_max / MIB:g} MiB; upload files once with /v1/files and name them by id"
    return RequestError(413, said, code="body_too_large", headers={"Connection": "close"})
