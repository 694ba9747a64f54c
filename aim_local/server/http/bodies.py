"""The body of a request, read under a limit: of one, and of all that are held at once.

A body's claimed length is checked before anything is read, and what comes is counted. Where all are too large together,
the one that comes slowest makes room.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import Iterator
from contextlib import contextmanager

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from ..failures import RequestError
from ..limits import MIB

CLOSE = {"Connection": "close"}  # what is left of the body is not read
_UTF8 = ("", "utf-8", "utf8", "us-ascii", "ascii")
_N_AT_ONCE = 4  # times the limit of one: what all requests that are being read may hold together
_SMALL = 2**18  # bytes of a body that are always read: a few large ones that come slowly must not shut out the others


class Bodies:
    """n_max: bytes of one; seconds: to read one in. Used in one event loop."""

    def __init__(self, n_max: int, seconds: float) -> None:
        self._n_max, self._seconds = n_max, seconds
        self._readers = set[Reader]()

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """What is read by it counts until the block ends."""
        reader = Reader(self, self._n_max, self._seconds)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def make_room(self) -> None:
        """Where too much is held, the slowest readers give up. Raises RequestError where all are whole."""
        while sum(reader.n for reader in self._readers) > _N_AT_ONCE * self._n_max:
            large = [reader for reader in self._readers if reader.n > _SMALL and not reader.is_whole]
            if not large:
                raise too_many()
            slowest = min(large, key=lambda reader: reader.pace)
            self._readers.discard(slowest)
            slowest.give_up()


class Reader:
    def __init__(self, bodies: Bodies, n_max: int, seconds: float) -> None:
        self.n, self._bodies, self._n_max, self._seconds = 0, bodies, n_max, seconds
        self.is_whole = self._is_given_up = False
        self._began, self._timeout = time.monotonic(), asyncio.timeout(seconds)

    @property
    def pace(self) -> float:
        """Bytes a second that came."""
        return self.n / max(1e-9, time.monotonic() - self._began)

    def give_up(self) -> None:
        """Ends the reading, with a refusal."""
        self._is_given_up = True
        self._timeout.reschedule(0)

    async def json(self, request: Request) -> bytes:
        """The body of a JSON request. Raises RequestError."""
        check_json(request)
        check_length(request, self._n_max)
        data = bytearray()
        try:
            async with self._timeout:
                async for chunk in request.stream():
                    if len(data) + len(chunk) > self._n_max:
                        raise too_large(self._n_max)
                    self.n += len(chunk)
                    if self.n > _SMALL:
                        self._bodies.make_room()
                    if self._is_given_up:
                        raise too_many()
                    data += chunk
        except TimeoutError as e:
            if self._is_given_up:
                raise too_many() from e
            said = f"the body did not come within {self._seconds:g} s"
            raise RequestError(408, said, headers=CLOSE) from e
        except ClientDisconnect as e:
            raise RequestError(499, "the client has gone") from e
        self.is_whole = True
        return bytes(data.removeprefix(codecs.BOM_UTF8))  # some editors put it in front


def check_json(request: Request) -> None:
    """A form or plain text is what a web page elsewhere may send without being asked for. Raises RequestError."""
    check_whole(request)
    given = request.headers.get("content-type", "")
    kind, options = parse_options_header(given)
    if kind != b"application/json":
        said = f"Content-Type is {given[:80]!r}; send the body as application/json"
        raise RequestError(415, said, headers=CLOSE)
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _UTF8:
        said = f"the charset of Content-Type is {charset[:80]!r}; send the body in UTF-8"
        raise RequestError(415, said, headers=CLOSE)


def check_whole(request: Request) -> None:
    """Raises RequestError for headers by which a body is something else than its bytes say."""
    codings = ", ".join(request.headers.getlist("content-encoding"))
    if any(coding.strip().lower() not in ("", "identity") for coding in codings.split(",")):
        said = f"Content-Encoding is {codings[:80]!r}; send the body as it is, without it"
        raise RequestError(415, said, headers=CLOSE)
    if len(request.headers.getlist("content-type")) > 1:
        raise RequestError(400, "Content-Type is there twice; give one", headers=CLOSE)
    if "content-range" in request.headers:
        said = "Content-Range is for a part of a body; send all of it in one request, without it"
        raise RequestError(400, said, headers=CLOSE)


def check_length(request: Request, n_max: int) -> None:
    """Raises RequestError for a claimed length that is too large, or is none."""
    claimed = request.headers.get("content-length")
    if claimed is None:
        return
    if not (claimed.isascii() and claimed.isdigit()):
        raise RequestError(400, "Content-Length is not a number", headers=CLOSE)
    if int(claimed[:20]) > n_max or len(claimed) > 20:
        raise too_large(n_max)


def too_many() -> RequestError:
    said = "too many large requests are being read; try again in 1 s"
    return RequestError(429, said, code="too_many_bytes", headers={"Retry-After": "1", "Connection": "close"})


def too_large(n_max: int) -> RequestError:
    said = f"the body is larger than {n_max / MIB:g} MiB; upload files once with /v1/files and name them by id"
    return RequestError(413, said, code="body_too_large", headers=CLOSE)
