"""A request at work: what happens to it is told as events, and it can be ended from any thread.

Knows neither the model nor HTTP's wire; the worker makes the events, a response takes them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..results import Answer, TokenLogprob
from .failures import RequestError
from .media.sources import Found
from .requests.asked import Asked


@dataclass(frozen=True)
class Client:
    """Who asks, for the order of the queue. account: of the API key, or an address; user: of the request's field.

    owner: whose uploads are its own, see Upload.
    """

    account: str
    user: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Moved:
    """A stage of the work before the first token: "decode_video", "vision" or "prefill"."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Said:
    """A piece of the answer. tokens: those drawn since the last piece, where they were asked for. n: of all so far."""

    text: str
    tokens: tuple[TokenLogprob, ...] = ()
    n: int = 0
    ms: float = 0.0  # since the first token


@dataclass(frozen=True, eq=False)
class Answered:
    """The whole answer. warnings: its own, with names for people. tokens: those that no piece had."""

    answer: Answer
    warnings: tuple[str, ...] = ()
    tokens: tuple[TokenLogprob, ...] = ()
    queue_ms: float = 0.0


@dataclass(frozen=True)
class Failed:
    error: RequestError


Event = Moved | Said | Answered | Failed


@dataclass(eq=False)
class Job:
    """emit: takes an event, in any thread. scope: what is closed when the work on it ends, such as temporary files.

    found: the media of each turn; None until they are there.
    """

    asked: Asked
    client: Client
    emit: Callable[[Event], None]
    scope: ExitStack = field(default_factory=ExitStack)
    found: tuple[tuple[Found, ...], ...] | None = None
    arrived: float = field(default_factory=time.monotonic)
    why: str = ""  # it was ended early: "client", "deadline", "shutdown", "queue", "media"
    done: bool = False  # there is an answer, or a failure
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def should_stop(self) -> bool:
        return bool(self.why)

    def end(self, why: str, error: RequestError | None = None) -> bool:
        """Ends it from outside; the first reason counts. error: what its client is told, None where it has gone."""
        with self._lock:
            if self.why:
                return False
            self.why = why
        if error is not None:
            self.emit(Failed(error))
        return True
