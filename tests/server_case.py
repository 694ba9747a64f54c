"""A service on loopback over the bundled model, or over a model that answers when a test says so."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

import openai
import uvicorn

from aim_local import LoadConfig, VisionLLM
from aim_local.errors import CancelledError
from aim_local.results import Answer, Stats, Trace
from aim_local.server.http.app import make_app
from aim_local.server.http.connections import server_config
from aim_local.server.http.guard import Guard
from aim_local.server.limits import Limits
from aim_local.server.media.sources import Sources
from aim_local.server.media.uploads import Uploads
from aim_local.server.service import Keeping, Service

CLIPS = Path(__file__).parent.parent / "aim_local" / "data" / "clips"
CLIP = CLIPS / "direction.mp4"
PATIENCE_S = 30.0  # ends a hang; nothing takes so long


def load() -> VisionLLM:
    """The bundled model; nothing goes to the disk."""
    return VisionLLM.load(config=LoadConfig(cache_media=False, n_threads=1))


@dataclass(eq=False)
class Running:
    """A service that runs. log: its lines."""

    service: Service
    uploads: Uploads
    url: str
    log: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"{self.url}/v1"

    def openai(self, key: str = "none", **options: Any) -> Any:
        return openai.OpenAI(base_url=self.base, api_key=key, max_retries=0, timeout=PATIENCE_S, **options)

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until it holds, which nobody tells."""
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, "it never came to hold"
            time.sleep(0.005)

    def post(self, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.base}/chat/completions", json=body, timeout=PATIENCE_S, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE_S, **options)


@contextmanager
def running(
    model: Callable[[], Any] = load,
    limits: Limits | None = None,
    *,
    keys: Sequence[str] = (),
    cors: Sequence[str] = (),
    keeping: Keeping | None = None,
    wait: bool = True,
    **sources: Any,
) -> Iterator[Running]:
    """wait: until the model is loaded."""
    limits, ready, log = limits or Limits(), threading.Event(), list[str]()
    with Uploads(limits) as uploads, socket.create_server(("127.0.0.1", 0)) as listener:
        service = Service(model, Sources(limits, uploads, **sources), limits, keeping, on_ready=lambda _: ready.set())
        app = make_app(service, uploads, Guard("127.0.0.1", tuple(keys), tuple(cors)), log.append)
        server = uvicorn.Server(server_config(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        service.open()
        try:
            assert not wait or ready.wait(PATIENCE_S)
            yield Running(service, uploads, f"http://127.0.0.1:{listener.getsockname()[1]}", log)
        finally:
            service.close()
            server.should_exit = True
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    """One service for all tests of a file."""
    with running() as found:
        yield found


# --- requests ---------------------------------------------------------------------------------------------------------


def data_url(path: Path = CLIP, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def video_part(url: str | None = None) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url or data_url()}}


def question(text: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a first question."""
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}] if parts else text}]


# --- a model that answers when it is told to --------------------------------------------------------------------------


@dataclass(eq=False)
class HeldCall:
    """An `ask` that waits. stopped: it was asked to stop."""

    question: str
    options: dict[str, Any]
    release: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)


class HeldLLM:
    """Says "word " at once, then the rest of an answer when its call is released, or stops when should_stop says so.

    calls: in the order in which they began; `next_call` waits for one.
    """

    name, architecture, n_ctx_train, default_frames, has_vision = "held", "qwen2", 2048, 8, True

    model: Any = None

    def __init__(self, *, free: bool = False, vision: bool = True) -> None:
        self.calls: list[HeldCall] = []
        self.chats: list[HeldChat] = []
        self.free, self.has_vision = free, vision
        self._began = threading.Semaphore(0)
        self._taken = 0
        self.error: BaseException | None = None

    def load(self) -> Self:
        return self

    def description(self) -> dict[str, Any]:
        return {"model": "/models/held-file.gguf", "projector": "some" if self.has_vision else None}

    def chat(self, *args: Any, **options: Any) -> HeldChat:
        self.chats.append(HeldChat(self))
        return self.chats[-1]

    def next_call(self) -> HeldCall:
        assert self._began.acquire(timeout=PATIENCE_S), "nothing was asked"
        self._taken += 1
        return self.calls[self._taken - 1]

    def begin(self, call: HeldCall) -> None:
        self.calls.append(call)
        self._began.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class HeldChat:
    n_bytes = 1000

    def __init__(self, llm: HeldLLM) -> None:
        self.llm, self.questions, self.closed = llm, list[str](), False

    def ask(self, question: str, media: Any, generate: Any, on_text: Any, progress: Any, **options: Any) -> Answer:
        call = HeldCall(question, {"media": media, "generate": generate, **options})
        self.questions.append(question)
        self.llm.begin(call)
        if self.llm.error:
            raise self.llm.error
        progress("prefill", 1, 1)
        on_text("word ")
        while not (self.llm.free or call.release.wait(0.005)):
            if options["should_stop"]():
                call.stopped.set()
                raise CancelledError("cancelled")
        on_text("end")
        return Answer("word end", [1, 2], Stats(n_generated=2, stop_reason="eos"), NO_TRACE)

    def rewind(self, n_messages: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


NO_TRACE: Trace = SimpleNamespace(grids=[])  # type: ignore[assignment]
