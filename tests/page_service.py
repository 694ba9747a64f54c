"""A service for tests of the page: the contract's addresses, answers that are given here, and faults to be asked for.

A question that begins with "!" plays a part (see PARTS); every other one is answered with `text`. Parts that hold wait
for `go()`, so no test waits for a clock.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse

from aim_local.server.page import reply

Chunk = dict[str, Any] | None  # None: nothing new, look whether the client is still there
Part = Callable[["PageService"], Iterator[Chunk]]


@dataclass
class PageService:
    """looks, usage, timings: of every answer, as the contract has them. asked: bodies that came, in order.

    status: of /health. key: that is wanted, "" for none. busy: how many questions are still answered with 429.
    refuse_upload: why every upload is refused, "" for taking them. hung_up: set when a client leaves a
    stream; took_away: when a file is removed.
    """

    looks: dict[str, Any] | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    text: str = "red cross"
    asked: list[dict[str, Any]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    status: str = "ok"
    key: str = ""
    busy: int = 0
    refuse_upload: str = ""
    took_away: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    upload_gate: threading.Event = field(default_factory=threading.Event)
    steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    url: str = ""

    # --- life ---

    def __enter__(self) -> PageService:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.upload_gate.set()
        config = uvicorn.Config(self.app(), log_level="error", timeout_graceful_shutdown=1, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.upload_gate.set()
        self._server.should_exit = True
        self._thread.join(10)

    def fresh(self) -> None:
        """As at the beginning, but for looks, usage and timings."""
        self.text, self.status, self.key, self.busy, self.refuse_upload = "red cross", "ok", "", 0, ""
        self.asked, self.uploads, self.removed = [], {}, []
        self.hung_up.clear()
        self.took_away.clear()
        self.upload_gate.set()
        self.steps = threading.Semaphore(0)

    def go(self) -> None:
        """Lets a part that holds go on to its next hold."""
        self.steps.release()

    # --- addresses ---

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def key(request: Request, call: Any) -> Response:
            wanted = self.key and request.url.path.startswith("/v1/")
            if wanted and request.headers.get("Authorization") != f"Bearer {self.key}":
                return refusal(401, "give the key: Authorization: Bearer KEY")
            response: Response = await call(request)
            return response

        @app.get("/")
        @app.get("/page/{name}")
        async def page(request: Request) -> Response:
            found = reply(request.url.path, request.headers.get("If-None-Match", ""))
            return Response(found.body, found.status, found.headers) if found else refusal(404, "no such page")

        @app.get("/health")
        async def health() -> Response:
            return JSONResponse({"status": self.status}, 200 if self.status == "ok" else 503)

        @app.get("/v1/models")
        async def models() -> Any:
            meta = {"default_frames": 8, "vision": True, "architecture": "toy"}
            return {"data": [{"id": "bundled", "object": "model", "owned_by": "aim-local", "meta": meta}]}

        @app.post("/v1/files")
        def upload(file: UploadFile) -> Response:
            self.upload_gate.wait(30)
            if self.refuse_upload:
                return refusal(415, self.refuse_upload)
            name = f"file-{len(self.uploads) + 1}"
            self.uploads[name] = file.file.read()
            return JSONResponse({"id": name, "object": "file"})

        @app.delete("/v1/files/{name}")
        async def remove(name: str) -> Any:
            self.removed.append(name)
            self.took_away.set()
            return {"id": name, "deleted": True}

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            return self.answer(json.loads(await request.body()), request)

        return app

    # --- answers ---

    def answer(self, body: dict[str, Any], request: Request) -> Response:
        self.asked.append(body)
        part = words(body["messages"][-1]["content"]).split()[0]
        if self.status == "stopping":
            return refusal(503, "the service is stopping and takes no more questions")
        if self.busy:
            self.busy -= 1
            return refusal(429, "32 requests wait already", {"Retry-After": "1"})
        gone = [name for name in named(body) if name not in self.uploads]
        if gone:
            return refusal(404, f"there is no file {gone[0]}; upload it again")
        if part == "!refused":
            return refusal(400, "frames is 900; at most 256 are taken")
        return StreamingResponse(self.stream(PARTS.get(part, said), request), media_type="text/event-stream")

    async def stream(self, part: Part, request: Request) -> AsyncIterator[bytes]:
        there = False
        try:
            for chunk in part(self):
                if chunk is not None:
                    yield f"data: {json.dumps(chunk)}\n\n".encode()
                elif await request.is_disconnected():
                    return
                else:
                    await asyncio.sleep(0.005)
            there = True
            if part is not broken:
                yield b"data: [DONE]\n\n"
        finally:  # a client that leaves ends this at any await
            if not there:
                self.hung_up.set()

    def last(self, **more: Any) -> dict[str, Any]:
        return {
            "choices": [],
            "usage": self.usage,
            "timings": self.timings,
            "looks": self.looks,
            "warnings": [],
            **more,
        }

    def hold(self) -> Iterator[None]:
        while not self.steps.acquire(blocking=False):
            yield None


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


def words(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


def named(body: dict[str, Any]) -> list[str]:
    """Ids of the files of a conversation, in order."""
    contents = [message["content"] for message in body["messages"]]
    return [p["file"]["file_id"] for c in contents if isinstance(c, list) for p in c if p["type"] == "file"]


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def stopped(reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def progress(stage: str, done: int, total: int) -> dict[str, Any]:
    return {"choices": [], "prompt_progress": {"stage": stage, "done": done, "total": total}}


# --- parts that a question can ask for --------------------------------------------------------------------------------

ATTACK = '<img src=x onerror="alert(1)"><script>alert(2)</script> [x](javascript:alert(3))'


def said(service: PageService) -> Iterator[Chunk]:
    """All that is in `text`, three characters a time."""
    yield from (progress("decode_video", n, 8) for n in (4, 8))
    yield from (progress("vision", n, 8) for n in (4, 8))
    yield progress("prefill", 143, 143)
    yield from (delta(service.text[i : i + 3]) for i in range(0, len(service.text), 3))
    yield stopped()
    yield service.last()


def slow(service: PageService) -> Iterator[Chunk]:
    """Holds at frame 3 of 8, and again in the middle of the answer."""
    yield progress("decode_video", 6, 8)
    yield progress("vision", 3, 8)
    yield from service.hold()
    yield delta("It begins at 0:0")
    yield delta("1 and then ")
    yield from service.hold()
    yield delta("ends.")
    yield stopped()
    yield service.last()


def growing(service: PageService) -> Iterator[Chunk]:
    yield delta("At 0:01")
    yield from service.hold()
    yield delta(":30 it ends, at 0:01 it began.")
    yield stopped()
    yield service.last()


def cut(service: PageService) -> Iterator[Chunk]:
    yield delta("It begins")
    yield stopped("length")
    yield service.last()


def toy(service: PageService) -> Iterator[Chunk]:
    yield delta("white ring")
    yield stopped()
    yield service.last(toy=True, warnings=["the bundled toy model knows only its own clips: this answer means nothing"])


def attack(service: PageService) -> Iterator[Chunk]:
    yield delta(ATTACK)
    yield stopped()
    looks = {**(service.looks or {}), "summary": ATTACK, "detail": ATTACK}
    frames = [{**frame, "label": ATTACK, "image": "http://127.0.0.1:9/x.jpg"} for frame in looks.get("frames", [])]
    yield service.last(warnings=[ATTACK], looks={**looks, "frames": frames})


def broken(service: PageService) -> Iterator[Chunk]:
    """The connection ends before the answer."""
    yield delta("It begins")


def failing(service: PageService) -> Iterator[Chunk]:
    yield delta("It begins")
    yield {"error": {"message": "the service was stopped while it answered", "type": "overloaded_error"}}


PARTS: dict[str, Part] = {
    "!slow": slow,
    "!grows": growing,
    "!cut": cut,
    "!toy": toy,
    "!attack": attack,
    "!broken": broken,
    "!fails": failing,
}
