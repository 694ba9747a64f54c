"""The service behind the routes: the model, the queue before it, who looks for media meanwhile, and how it all stops.

Knows no HTTP. One worker thread computes; a few threads fetch and check the media of requests that wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..media import FrameSampling
from .conversations import MIB, Conversations
from .failures import RequestError, stopping
from .fetchers import Fetchers
from .jobs import Answered, Client, Event, Job
from .limits import Limits
from .media.sources import Sources
from .metrics import Metrics
from .queue import FairQueue, close_scope
from .requests.asked import Asked, Defaults, Served, understand
from .requests.wire import parse_request
from .worker import Worker, refusal

if TYPE_CHECKING:
    from ..llm import VisionLLM

_POLL_S = 0.05


@dataclass(frozen=True)
class Keeping:
    """Conversations that are kept for requests that go on with them."""

    n: int = 4
    n_bytes: int = 2048 * MIB

    def __post_init__(self) -> None:
        if self.n < 0 or self.n_bytes < 0:
            raise UsageError(f"{self.n} conversations in {self.n_bytes} bytes cannot be kept; give 0 or more of both")


@dataclass(frozen=True)
class About:
    """The model, once it is loaded, as /v1/models tells it."""

    served: Served
    created: int
    meta: dict[str, object]


class Service:
    """load: gives the model, in the worker's thread. name: under which it is served, None for its own.

    on_ready: told when it is loaded, or why it is not; on_fault: hears of errors that are ours; on_end: of each request
    that the model is done with, answered or not. Use `open` and `close`.
    """

    def __init__(
        self,
        load: Callable[[], VisionLLM],
        sources: Sources,
        limits: Limits,
        keeping: Keeping | None = None,
        *,
        name: str | None = None,
        defaults: Defaults | None = None,
        on_ready: Callable[[BaseException | None], None] = lambda _: None,
        on_fault: Callable[[BaseException], None] = lambda _: None,
        on_end: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self.limits, self._sources, self._name = limits, sources, name
        self._keeping, self._defaults = keeping or Keeping(), defaults or Defaults()
        self._on_ready, self._on_fault, self.on_end = on_ready, on_fault, on_end
        self.queue = FairQueue(limits.n_waiting)
        self.metrics = Metrics(self.queue.__len__)
        self.about: About | None = None
        self.state = "loading"
        self._fetchers = Fetchers()
        self._worker = Worker(load, self._conversations, self.queue, self._loaded, self._told)

    # --- life ---

    def open(self) -> None:
        """Begins to load the model."""
        self._worker.start()

    def stop(self) -> None:
        """Takes no more requests; those that wait are refused, the one that is computed goes on."""
        self.state = "stopping"
        for job in self.queue.close():
            if job.end("shutdown", stopping()):
                self.metrics.ended("shutdown")
            close_scope(job)

    def cut(self) -> None:
        """Ends the answer that is computed."""
        job = self._worker.running
        if job is not None:
            said = "the service stopped, the answer was cut"
            self.leave(job, "shutdown", RequestError(503, said, code="stopping"))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is computed."""
        return self._worker.running is None

    @property
    def is_over(self) -> bool:
        """After `stop`: whether the last answer has ended and the model is freed."""
        return not self._worker.is_alive()

    @property
    def is_quiet(self) -> bool:
        """After `close`: whether nobody is still at work, on the model or on media."""
        return self.is_over and self._fetchers.is_idle

    def close(self, seconds: float = 10.0) -> bool:
        """Stops, cuts, and frees the model. False where it is still at work after that time."""
        self.stop()
        deadline = time.monotonic() + seconds
        while not self.is_over and time.monotonic() < deadline:
            self.cut()
            self._worker.join(_POLL_S)
        self._fetchers.close()
        return self.is_over

    # --- requests ---

    def served(self) -> About:
        """Raises RequestError while there is no model."""
        if self.state == "stopping":
            raise stopping()
        if self.about is None:
            said = "the model is still being loaded; try again in 2 s"
            raise RequestError(503, said, code="loading", headers={"Retry-After": "2"})
        return self.about

    def read(self, body: bytes) -> Asked:
        """What a request asks. Raises RequestError."""
        return understand(parse_request(body), self.served().served, self.limits)

    def submit(self, asked: Asked, account: str, emit: Callable[[Event], None], owner: str = "") -> Job:
        """Puts a request into the queue; its media are looked for at once. Raises RequestError: 429, 503."""
        job = Job(asked, Client(account, asked.user, owner), emit)
        if not asked.parts:
            job.found = tuple(() for _ in asked.turns)
        self.queue.put(job)
        if asked.parts:
            try:
                self._fetchers.submit(account, partial(self._find, job), lambda: not job.should_stop())
            except RuntimeError as e:  # shut down meanwhile
                self.queue.remove(job)
                raise stopping() from e
        return job

    def leave(self, job: Job, why: str, error: RequestError | None) -> None:
        """Ends a request early, wherever it is; one that has ended stays as it is. error: for its client."""
        if job.done or not job.end(why, error):
            return
        self.metrics.ended(why)
        if self.queue.remove(job):
            close_scope(job)

    def _find(self, job: Job) -> None:
        """Looks for the media of a job, which keeps its place in the queue meanwhile."""
        try:
            scope = job.scope.enter_context(self._sources.request(job.client.owner))
            base = self._base_sampling(job.asked)
            found = tuple(
                tuple(scope.find(part.content, part.where, job.should_stop, base) for part in turn.media)
                for turn in job.asked.turns
            )
        except BaseException as e:
            if not isinstance(e, RequestError) and not job.why:
                self._on_fault(e)
            job.end("media", refusal(e, job))
            self.queue.remove(job)
            job.scope.close()
            return
        job.asked, job.found = job.asked.without_parts(), found
        if not self.queue.set_ready(job):
            job.scope.close()

    def _base_sampling(self, asked: Asked) -> FrameSampling:
        """What a part does not say of its sampling."""
        return asked.sampling or FrameSampling(self.served().served.default_frames)

    # --- the worker's news ---

    def _conversations(self, llm: VisionLLM) -> Conversations:
        return Conversations(llm, self._keeping.n, self._keeping.n_bytes)

    def _loaded(self, found: VisionLLM | BaseException) -> None:
        if isinstance(found, BaseException):
            self.state = "failed"
            self._on_ready(found)
            return
        self.about = about(found, self._name, self._defaults)
        if self.state == "loading":
            self.state = "ok"
        self._on_ready(None)

    def _told(self, job: Job, news: Answered | BaseException) -> None:
        self.on_end(job)
        if isinstance(news, Answered):
            self.metrics.answered(news.answer.stats, news.queue_ms)
        elif not job.why and refusal(news, job).status >= 500:
            self.metrics.failed()
            self._on_fault(news)


def about(llm: VisionLLM, name: str | None, defaults: Defaults) -> About:
    """name: to serve it under, None for its own."""
    facts = llm.description()
    stem = Path(str(facts["model"])).stem
    names = tuple(dict.fromkeys((name or llm.name, stem, "default")))
    meta = {
        "architecture": llm.architecture,
        "projector": facts["projector"],
        "n_ctx_train": llm.n_ctx_train,
        "default_frames": defaults.frames or llm.default_frames,
        "vision": llm.has_vision,
    }
    served = Served(names, llm.has_vision, llm.default_frames, llm.n_ctx_train, defaults)
    return About(served, int(time.time()), meta)
