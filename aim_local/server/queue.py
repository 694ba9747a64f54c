"""The order in which requests come to the one model: by turns over clients, first come first served within one.

Bounded. Where it is full, a newcomer takes the place of the newest request of a client that waits with more. Else it is
refused, and the next places are held for the clients that were refused, in their order, for as long as they may be
expected back: else who asks most often would be let in. A request whose media are still being fetched is passed over,
and keeps its place.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator

from .failures import RequestError, stopping
from .jobs import Job

_N_TIMES = 8  # answers that the estimate of waiting looks back on
_FIRST_GUESS_S = 2.0


class FairQueue:
    """n_waiting: most requests in it. Any thread may call; `take` blocks."""

    def __init__(self, n_waiting: int) -> None:
        self._n_max = n_waiting
        self._change = threading.Condition()
        self._clients: OrderedDict[str, OrderedDict[str, deque[Job]]] = OrderedDict()  # account -> user -> jobs
        self._refused: OrderedDict[str, float] = OrderedDict()  # account -> until when it is expected back
        self._times: deque[float] = deque(maxlen=_N_TIMES)
        self._closed = False

    def __len__(self) -> int:
        with self._change:
            return self._count()

    def put(self, job: Job) -> None:
        """Raises RequestError: 429 where it is full, 503 where it is closed."""
        evicted, account = None, job.client.account
        with self._change:
            if self._closed:
                raise stopping()
            if self._is_full_for(account):
                evicted = self._newest_of_the_largest(self._waiting(account) + 1)
                if evicted is None:
                    raise self._refuse(account)
                self._remove(evicted)
            self._refused.pop(account, None)
            users = self._clients.setdefault(account, OrderedDict())
            users.setdefault(job.client.user, deque()).append(job)
            self._change.notify_all()
            full = self._full()
        if evicted is not None:
            evicted.end("queue", full)
            close_scope(evicted)

    def set_ready(self, job: Job) -> bool:
        """Its media are there. False where it left meanwhile: then its scope is the caller's to close."""
        with self._change:
            here = any(job is other for other in self._jobs())
            self._change.notify_all()
            return here

    def take(self) -> Job | None:
        """The next job whose media are there; waits for one. None when the queue is closed."""
        with self._change:
            while not self._closed:
                job = self._next()
                if job is not None:
                    return job
                self._change.wait()
            return None

    def remove(self, job: Job) -> bool:
        """Whether it was still here."""
        with self._change:
            return self._remove(job)

    def close(self) -> list[Job]:
        """Ends `take`, refuses newcomers; the jobs that waited come back."""
        with self._change:
            self._closed, left = True, list(self._jobs())
            self._clients.clear()
            self._change.notify_all()
            return left

    def note_time(self, seconds: float) -> None:
        """How long a request was computed."""
        with self._change:
            self._times.append(seconds)

    # --- with the lock held ---

    def _jobs(self) -> Iterator[Job]:
        for users in self._clients.values():
            for jobs in users.values():
                yield from jobs

    def _count(self) -> int:
        return sum(1 for _ in self._jobs())

    def _waiting(self, account: str) -> int:
        return sum(len(jobs) for jobs in self._clients.get(account, {}).values())

    def _next(self) -> Job | None:
        for account, users in self._clients.items():
            for user, jobs in users.items():
                if jobs[0].found is not None:
                    job = jobs[0]
                    users.move_to_end(user)  # behind the others of this client,
                    self._clients.move_to_end(account)  # which goes behind the other clients
                    self._remove(job)
                    return job
        return None

    def _remove(self, job: Job) -> bool:
        users = self._clients.get(job.client.account, OrderedDict())
        jobs = users.get(job.client.user, deque())
        if not any(job is other for other in jobs):
            return False
        jobs.remove(job)
        if not jobs:
            del users[job.client.user]
        if not users:
            del self._clients[job.client.account]
        return True

    def _is_full_for(self, account: str) -> bool:
        """Counts places that are held for others, once the queue is half full."""
        now, n = time.monotonic(), self._count()
        self._refused = OrderedDict((other, until) for other, until in self._refused.items() if until > now)
        others = list(self._refused)
        n_held = others.index(account) if account in others else len(others)
        return n >= self._n_max or (2 * n >= self._n_max and n + n_held >= self._n_max)

    def _refuse(self, account: str) -> RequestError:
        refusal = self._full()
        if account in self._refused or len(self._refused) < self._n_max:
            self._refused[account] = time.monotonic() + 2 * int(refusal.headers["Retry-After"])
        return refusal

    def _newest_of_the_largest(self, n: int) -> Job | None:
        """None where no client waits with more than n."""
        account = max(self._clients, key=self._waiting, default="")
        if self._waiting(account) <= n:
            return None
        own = [job for jobs in self._clients[account].values() for job in jobs]
        return max(own, key=lambda job: job.arrived)

    def _full(self) -> RequestError:
        mean = sum(self._times) / len(self._times) if self._times else _FIRST_GUESS_S
        seconds = max(1, math.ceil(mean * (self._count() + 1) / 2))  # half of them done: there is room again
        return RequestError(
            429,
            f"{self._count()} requests are waiting, more are not taken; try again in about {seconds} s",
            code="queue_full",
            headers={"Retry-After": str(seconds)},
        )


def close_scope(job: Job) -> None:
    """Closes what was made for a job that left the queue, where its media were there; else who looks for them does."""
    if job.found is not None:
        job.scope.close()
