"""The routes of uploaded files, and the form in which they come: read as it comes, straight into a file.

Knows multipart forms. What is kept, and how much, is up to uploads.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Annotated, Literal, Self

from fastapi import FastAPI, Query, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response

from ..failures import RequestError
from ..limits import MIB, Limits
from ..media.uploads import Upload, Uploads, Writer
from ..requests.wire import shown
from . import schema
from .bodies import CLOSE, check_length, check_whole
from .front import JsonResponse, record_of

_SLACK = MIB  # of the form around the file
_STALL_S = 60.0
_PURPOSE = "user_data"  # until the field comes
_MAX_FIELD = 1024
_MAX_BOUNDARY = 70  # RFC 2046
_MAX_HEADER = 8192  # bytes of a part's header: it is held in memory
_AS_IT_IS = {  # headers of a part that say how its bytes are written, and which ways are none
    b"content-transfer-encoding": (b"", b"7bit", b"8bit", b"binary"),
    b"content-encoding": (b"", b"identity"),
}
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def file_routes(app: FastAPI, uploads: Uploads, limits: Limits) -> None:
    errors = (400, 401, 403, 404)

    @app.post(
        "/v1/files", tags=["files"], openapi_extra=schema.UPLOAD_FORM,
        responses=schema.answers(schema.FILE, *errors, 408, 413, 415, 499, 503, 507),
    )  # fmt: skip
    async def upload(request: Request) -> Response:
        """Uploads a clip or picture once; requests then name it by its id."""
        return JsonResponse((await receive(request, uploads, limits)).to_dict())

    @app.get("/v1/files", tags=["files"], responses=schema.answers(schema.FILES, *errors))
    async def files(
        request: Request,
        purpose: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """What was uploaded."""
        owner = record_of(request.scope).owner
        found = [upload for upload in uploads.files(owner) if purpose in (None, upload.purpose)]
        if order == "asc":
            found.reverse()
        return JsonResponse(_page(found, uploads.get(after, owner) if after is not None else None, limit))

    @app.get("/v1/files/{id}", tags=["files"], responses=schema.answers(schema.FILE, *errors))
    async def file(request: Request, id: str) -> Response:
        """What is known of an uploaded file."""
        return JsonResponse(uploads.get(id, record_of(request.scope).owner).to_dict())

    @app.delete("/v1/files/{id}", tags=["files"], responses=schema.answers(schema.DELETED, *errors))
    async def delete(request: Request, id: str) -> Response:
        """Forgets an uploaded file."""
        await asyncio.to_thread(uploads.delete, id, record_of(request.scope).owner)
        return JsonResponse({"id": id, "object": "file", "deleted": True})

    @app.get(
        "/v1/files/{id}/content", tags=["files"],
        responses=schema.answers({"type": "string", "format": "binary"}, *errors, 416, kind="application/octet-stream"),
    )  # fmt: skip
    async def content(request: Request, id: str) -> Response:
        """The bytes of an uploaded file."""
        held = ExitStack()
        owner = record_of(request.scope).owner
        _check_range(request, uploads.get(id, owner).n_bytes)
        upload = held.enter_context(uploads.held(id, owner))
        # its type is nobody's word but the uploader's: a browser must not take it for a page
        kind, done = "application/octet-stream", BackgroundTask(held.close)
        return FileResponse(upload.path, media_type=kind, filename=upload.name, background=done)


def _page(found: Sequence[Upload], after: Upload | None, limit: int) -> dict[str, object]:
    """The first `limit` of those behind `after`. Raises ValueError where that is not among them."""
    rest = found[[upload.id for upload in found].index(after.id) + 1 :] if after else found
    data = [upload.to_dict() for upload in rest[:limit]]
    return {"object": "list", "data": data, "has_more": len(rest) > limit}


def _check_range(request: Request, n_bytes: int) -> None:
    """One range is served; what is none, or several, is taken out of the request: then all of the file is sent.

    Raises RequestError for a range behind the end.
    """
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    first, last = found.groups() if found else ("", "")
    if not (first or last) or (first and last and int(first) > int(last)):
        headers = request.headers.mutablecopy()
        del headers["range"]
        request.scope["headers"] = headers.raw
    elif int(first) >= n_bytes if first else not int(last):
        said = f"the file has {n_bytes:,} bytes, and the range begins behind them"
        raise RequestError(416, said, param="range", headers={"Content-Range": f"bytes */{n_bytes}"})


async def receive(request: Request, uploads: Uploads, limits: Limits) -> Upload:
    """Reads a form into a file that is kept. Raises RequestError, and nothing is kept."""
    check_whole(request)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= _MAX_BOUNDARY:
        said = "send the file as multipart/form-data, with the fields purpose and file"
        raise RequestError(415, said, headers=CLOSE)
    check_length(request, limits.file_bytes + _SLACK)
    with _Form(boundary, uploads, record_of(request.scope).owner) as form:
        async for chunk in _chunks(request):
            await asyncio.to_thread(form.feed, chunk)
        return await asyncio.to_thread(form.finish)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Raises RequestError where nothing comes for a while."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_STALL_S):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as e:
            raise RequestError(408, f"nothing of the body came for {_STALL_S:g} s", headers=CLOSE) from e
        except ClientDisconnect as e:
            raise RequestError(499, "the client has gone") from e
        yield chunk


class _Form:
    """A form with one file and the field purpose, in any order. `with` leaves nothing that was not finished."""

    def __init__(self, boundary: bytes, uploads: Uploads, owner: str = "") -> None:
        self._uploads, self._owner, self._whole = uploads, owner, False
        self._writer: Writer | None = None
        self._purpose = bytearray()
        self._header, self._value, self._place = b"", b"", b""
        self._takes: Callable[[bytes], None] = _nothing
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": lambda data, start, end: self._takes(data[start:end]),
                "on_end": self._form_ends,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as e:
            raise RequestError(400, f"the form is damaged: {e}", headers=CLOSE) from e

    def finish(self) -> Upload:
        if not self._whole:
            raise RequestError(400, "the form ends too early", headers=CLOSE)
        if self._writer is None:
            raise RequestError(400, "the form has no field file", param="file")
        if not self._purpose:
            raise RequestError(400, "the form has no field purpose; give vision", param="purpose")
        return self._writer.finish(self._purpose.decode("utf-8", "replace"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.abort()

    # --- the parser's news ---

    def _part_begins(self) -> None:
        self._place, self._takes = b"", _nothing

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > _MAX_HEADER:
            raise RequestError(400, f"a header of the form has more than {_MAX_HEADER} bytes", headers=CLOSE)

    def _header_ends(self) -> None:
        name, value = self._header.lower(), self._value.strip().lower()
        if name == b"content-disposition":
            self._place = self._value
        if value not in _AS_IT_IS.get(name, (value,)):
            said = f"{name.decode().title()} of a part is {shown(value.decode('latin-1'))}; send its bytes as they are"
            raise RequestError(415, said, headers=CLOSE)
        self._header, self._value = b"", b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._place)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "file":
            if self._writer is not None:
                raise RequestError(400, "the form has two files; send them one by one", param="file")
            filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self._writer = self._uploads.begin(filename, _PURPOSE, owner=self._owner)
            self._takes = self._writer.write
        elif name == "purpose":
            self._takes = self._take_purpose
        else:
            said = f"the form's field {shown(name)} is not known here; leave it out"
            raise RequestError(400, said, param=name[:60], headers=CLOSE)

    def _take_purpose(self, data: bytes) -> None:
        self._purpose += data
        if len(self._purpose) > _MAX_FIELD:
            raise RequestError(400, "purpose is too long", param="purpose", headers=CLOSE)

    def _form_ends(self) -> None:
        self._whole = True


def _nothing(data: bytes) -> None:
    pass
