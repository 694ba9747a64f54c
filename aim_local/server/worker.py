"""The one thread that computes: it loads the model, then answers one job after the other.

Knows the library and jobs; neither HTTP nor the order of jobs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import (
    AimError,
    CancelledError,
    ClosedError,
    ContextError,
    MediaBudgetError,
    MediaError,
    ModelError,
    UsageError,
)
from ..results import TokenLogprob
from .conversations import Conversations, Listeners
from .failures import RequestError, internal_error
from .jobs import Answered, Failed, Job, Moved, Said
from .media.sources import Found
from .queue import FairQueue
from .request_words import in_fields

if TYPE_CHECKING:
    from ..llm import VisionLLM


class Worker(threading.Thread):
    """load: gives the model. made: the conversations with it. ready: told when it is there, or why it is not.

    told: hears of each answer, and of faults that are ours. Ends when the queue is closed; frees the model then.
    """

    def __init__(
        self,
        load: Callable[[], VisionLLM],
        made: Callable[[VisionLLM], Conversations],
        queue: FairQueue,
        ready: Callable[[VisionLLM | BaseException], None],
        told: Callable[[Job, Answered | BaseException], None],
    ) -> None:
        super().__init__(name="aim-local worker", daemon=True)
        self._load, self._made, self._queue, self._ready, self._told = load, made, queue, ready, told
        self.running: Job | None = None

    def run(self) -> None:
        try:
            llm = self._load()
        except BaseException as e:
            self._ready(e)
            return
        with llm:
            conversations = self._made(llm)
            self._ready(llm)
            while (job := self._queue.take()) is not None:
                self._do(job, conversations)
            conversations.close()

    def _do(self, job: Job, conversations: Conversations) -> None:
        started, self.running = time.monotonic(), job
        try:
            with job.scope:
                done = _answer(job, conversations, (started - job.arrived) * 1000)
        except BaseException as e:
            job.done = True
            self._told(job, e)
            job.emit(Failed(refusal(e, job)))
        else:
            job.done = True
            self._told(job, done)
            job.emit(done)
        finally:
            self.running = None
            self._queue.note_time(time.monotonic() - started)


def _answer(job: Job, conversations: Conversations, queue_ms: float) -> Answered:
    course = _Course(job)
    on_token = course.drew if job.asked.generate.logprobs is not None else None
    answer = conversations.answer(job, Listeners(course.said, on_token, course.moved, job.should_stop))
    if job.why:
        raise CancelledError("the answer was ended from outside")
    items = [item for turn in job.found or () for item in turn]
    told = [
        *(line for item in items for line in item.warnings),
        *(with_names(in_fields(line), items) for line in answer.warnings),
    ]
    return Answered(answer, tuple(told), course.taken(), queue_ms)


class _Course:
    """Tells a job what happens while it is answered."""

    def __init__(self, job: Job) -> None:
        self._job, self._drawn, self._n, self._first = job, list[TokenLogprob](), 0, 0.0

    def moved(self, stage: str, done: int, total: int) -> None:
        if self._job.asked.return_progress:
            self._job.emit(Moved(stage, done, total))

    def drew(self, token: TokenLogprob) -> None:
        self._first = self._first or time.perf_counter()
        self._drawn.append(token)
        self._n += 1

    def said(self, text: str) -> None:
        if self._job.asked.stream:
            ms = (time.perf_counter() - self._first) * 1000 if self._first else 0.0
            self._job.emit(Said(text, self.taken(), self._n, ms))

    def taken(self) -> tuple[TokenLogprob, ...]:
        """Tokens that were not told yet."""
        drawn, self._drawn = tuple(self._drawn), []
        return drawn


def refusal(e: BaseException, job: Job) -> RequestError:
    """What a client is told of an error of the library."""
    if isinstance(e, RequestError):
        return e
    items = [item for turn in job.found or () for item in turn]
    text = with_names(in_fields(str(e)), items)
    if isinstance(e, ContextError):
        return RequestError(400, text, param="messages", code="context_length_exceeded")
    if isinstance(e, MediaBudgetError):
        return RequestError(413, text, param="messages", code="limit_exceeded")
    if isinstance(e, MediaError) and not isinstance(e, MemoryError):
        return RequestError(400, text, param="messages", code="invalid_media")
    if isinstance(e, UsageError | ModelError):
        return RequestError(400, text)
    if isinstance(e, ClosedError | CancelledError):
        return RequestError(503, "the service is stopping", code="stopping")
    if isinstance(e, AimError | MemoryError):
        return RequestError(500, text or "not enough memory", code="internal_error")
    return internal_error(e)


def with_names(text: str, items: Sequence[Found]) -> str:
    """A line of the library, with what people call a file in the place of where it lies here."""
    for item in items:
        text = item.without_path(text)
        if isinstance(item.media, Path):  # the line about the toy has the path's last part alone
            before, last = "its answer about ", item.media.name
            text = text.replace(f"{before}{last} ", f"{before}{item.name} ")
    return text
