"""A service for tests of the page: the contract's addresses over the bundled model, with faults to be asked for.

The page's questions are answered by the model itself, so that counts, times and looks are real; questions that begin with
"!" play a part instead (see PARTS). A test holds the service at a point with `gate`, so nothing waits for a clock.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse

from aim_local.server.page import reply

Part = Callable[["PageService", dict[str, Any]], Iterator[dict[str, Any]]]


@dataclass
class PageService:
    """looks, timings, usage: of the last answers, as the contract has them. asked: bodies that came, in order.

    status: of /health. key: that is wanted. busy: how many questions are still answered with 429.
    """

    looks: dict[str, Any] | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    text: list[str] = field(default_factory=lambda: ["red ", "cross"])
    asked: list[dict[str, Any]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    status: str = "ok"
    key: str = ""
    busy: int = 0
    refuse_upload: str = ""
    hung_up: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)  # open: streams run through
    upload_gate: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()
        self.upload_gate.set()

    # --- life ---

    def __enter__(self) -> PageService:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self.app(), log_level="error", timeout_graceful_shutdown=1, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.upload_gate.set()
        self._server.should_exit = True
        self._thread.join(10)

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
            return {"id": name, "deleted": True}

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            return self.answer(json.loads(await request.body()))

        return app

    # --- answers ---

    def answer(self, body: dict[str, Any]) -> Response:
        self.asked.append(body)
        if self.status == "stopping":
            return refusal(503, "the service is stopping and takes no more questions")
        if self.busy:
            self.busy -= 1
            return refusal(429, "32 requests wait already", {"Retry-After": "1"})
        question = words(body["messages"][-1]["content"])
        part = PARTS.get(question.split()[0], said)
        if part is refused:
            return refusal(400, "n_frames is 900; at most 256 are taken, use frames=256")
        return StreamingResponse(self.stream(part, body), media_type="text/event-stream")

    def stream(self, part: Part, body: dict[str, Any]) -> Iterator[bytes]:
        ended = False
        try:
            for chunk in part(self, body):
                yield f"data: {json.dumps(chunk)}\n\n".encode()
            ended = part is not broken
            if ended:
                yield b"data: [DONE]\n\n"
        except GeneratorExit:
            self.hung_up.set()
            raise

    def last(self, **more: Any) -> dict[str, Any]:
        return {
            "choices": [],
            "usage": self.usage,
            "timings": self.timings,
            "looks": self.looks,
            "warnings": [],
            **more,
        }


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers)


def words(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def stopped(reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def progress(stage: str, done: int, total: int) -> dict[str, Any]:
    return {"choices": [], "prompt_progress": {"stage": stage, "done": done, "total": total}}


# --- parts that a question can ask for --------------------------------------------------------------------------------


def said(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (progress("decode_video", n, 8) for n in (4, 8))
    yield from (progress("vision", n, 8) for n in (4, 8))
    yield progress("prefill", 143, 143)
    yield from map(delta, service.text)
    yield stopped()
    yield service.last()


def slow(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Looks at frame 3 of 8 until the gate opens, then says half and waits again."""
    yield progress("decode_video", 6, 8)
    yield progress("vision", 3, 8)
    for text in ("It begins at 0:0", "1 and then "):
        service.gate.wait(0.02) if text.startswith("1") else None
        while not service.gate.wait(0.02):  # a comment keeps the line alive, and tells when the client is gone
            yield {"choices": []}
        yield delta(text)
    service.gate.clear()
    while not service.gate.wait(0.02):
        yield {"choices": []}
    yield delta("ends.")
    yield stopped()
    yield service.last()


def timed(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    text = "At 0:01 a cross comes, from 0.5 to 1.5 seconds it is red; at 9:59 nothing.\nשלום at 0:01 <img src=x onerror=alert(1)>"
    yield from (delta(text[i : i + 3]) for i in range(0, len(text), 3))
    yield stopped("length")
    yield service.last()


def toy(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield delta("white ring")
    yield stopped()
    yield service.last(toy=True, warnings=["the bundled toy model knows only its own clips: this answer means nothing"])


def broken(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield delta("It begins")


def failing(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield delta("It begins")
    yield {"error": {"message": "the service was stopped while it answered", "type": "overloaded_error"}}


def refused(service: PageService, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from ()


PARTS: dict[str, Part] = {
    "!slow": slow,
    "!times": timed,
    "!toy": toy,
    "!broken": broken,
    "!fails": failing,
    "!refused": refused,
}
