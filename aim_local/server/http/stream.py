"""A job's events as an HTTP response: server-sent events, or one JSON object; whoever hangs up ends the work.

Knows the order of what is sent. The form of each piece is in reply.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...results import TokenLogprob
from ..failures import RequestError
from ..jobs import Answered, Event, Failed, Job, Moved, Said
from . import reply
from .front import JsonResponse, error_response, record_of
from .reply import Json, Reply

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
KEEP_ALIVE_S = 15.0  # without a word for so long, a stream says that it lives
_LATE_S = 30.0  # to send what is left once the deadline is over


class JobResponse(Response):
    """events: those of `job`, in the loop that sends. seconds: until it is ended. leave: takes the job off the queue.

    looks: makes what was kept of each frame of an answer.
    """

    media_type = None

    def __init__(
        self,
        job: Job,
        events: asyncio.Queue[Event],
        frame: Reply,
        seconds: float,
        leave: Callable[[Job, str, RequestError | None], None],
        looks: Callable[[Answered], object],
    ) -> None:
        super().__init__()
        self._job, self._events, self._frame, self._seconds = job, events, frame, seconds
        self._leave, self._looks = leave, looks
        self._id = {"x-request-id": frame.id}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = max(0.0, self._seconds - (time.monotonic() - self._job.arrived))
        deadline = asyncio.get_running_loop().call_later(left, self._end_late)
        answering = asyncio.ensure_future(self._answer(scope, receive, send))
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait({answering, gone}, timeout=left + _LATE_S, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            else:
                record_of(scope).note = "the client has gone"
        finally:
            deadline.cancel()
            self._leave(self._job, "client", None)  # does nothing where it has ended
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    def _end_late(self) -> None:
        said = f"there was no answer within {self._seconds:g} s, the service's limit; ask for less"
        self._leave(self._job, "deadline", RequestError(504, said, code="deadline"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._job.asked.stream:
            await self._stream(scope, receive, send)
        else:
            await self._whole(scope, receive, send)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            event = await self._events.get()
            if isinstance(event, Failed):
                await error_response(event.error)(scope, receive, send)
                return
            if isinstance(event, Answered):
                _note(scope, event)
                tokens = event.tokens if self._job.asked.logprobs else None
                body = self._frame.completion(event, tokens, await self._looked(event))
                await JsonResponse(body, headers=self._id)(scope, receive, send)
                return

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = await self._next()
        if isinstance(event, Failed):  # nothing was said yet: it has a status of its own
            await error_response(event.error)(scope, receive, send)
            return
        writer = _Writer(send, self._frame, self._job)
        await writer.start({**_HEADERS, **self._id})
        while not isinstance(event, Answered | Failed):
            await writer.write(event)
            event = await self._next()
        if isinstance(event, Failed):
            await writer.fail(event.error)
        else:
            _note(scope, event)
            await writer.finish(event, await self._looked(event))

    async def _next(self) -> Event | None:
        """The next event; None where there was none for a while."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                return await self._events.get()
        except TimeoutError:
            return None

    async def _looked(self, done: Answered) -> object:
        if not self._job.asked.return_looks:
            return None
        return await asyncio.to_thread(self._looks, done)


class _Writer:
    """Server-sent events in OpenAI's form: the role first, pieces, the finish, the usage, [DONE]."""

    def __init__(self, send: Send, frame: Reply, job: Job) -> None:
        self._send, self._frame, self._asked = send, frame, job.asked
        self._spoke = False

    async def start(self, headers: dict[str, str]) -> None:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        raw.append((b"content-type", b"text/event-stream; charset=utf-8"))
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(self, event: Moved | Said | None) -> None:
        if event is None:
            await self._put(b": still at work\n\n")
        elif isinstance(event, Moved):
            await self._event(self._frame.progress(event, with_usage=self._asked.include_usage))
        else:
            await self._speak()
            chunk = self._chunk({"content": event.text}, event.tokens)
            if self._asked.timings_per_token:
                chunk["timings"] = reply.timings_so_far(event)
            await self._event(chunk)

    async def finish(self, done: Answered, looks: object) -> None:
        await self._speak()
        finish = reply.finish_reason(done.answer.stats)
        last = {**self._chunk({}, done.tokens, finish), **reply.extras(done, looks)}
        await self._event(last)
        if self._asked.include_usage:
            await self._event(self._frame.usage_chunk(done))
        await self._put(b"data: [DONE]\n\n", more=False)

    async def fail(self, e: RequestError) -> None:
        """After what was said; there is no [DONE], the answer is not done."""
        await self._put(reply.event(e.body()), more=False)

    async def _speak(self) -> None:
        if not self._spoke:
            self._spoke = True
            await self._event(self._chunk({"role": "assistant", "content": ""}, None))

    def _chunk(self, delta: Json, tokens: tuple[TokenLogprob, ...] | None, finish: str | None = None) -> Json:
        told = tokens if tokens and self._asked.logprobs else None
        return self._frame.chunk(delta, tokens=told, finish=finish, with_usage=self._asked.include_usage)

    def _event(self, data: Json) -> Awaitable[None]:
        return self._put(reply.event(data))

    async def _put(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


async def _hung_up(receive: Receive) -> None:
    """Ends when the client has gone. The body was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _note(scope: Scope, done: Answered) -> None:
    stats = done.answer.stats
    before, after = stats.n_reused_visual_full + stats.n_visual_full, stats.n_reused_visual + stats.n_visual
    media = f"visual tokens {before} -> {after}, " if before else ""
    record_of(scope).note = f"{media}{stats.n_generated} token{'s' * (stats.n_generated != 1)} answered"
