"""A Dask cluster whose workers answer: connected, checked, and given one question at a time each.

Dask decides who gets which question and gives those of a lost worker to others. Knows Dask's client. What runs on a
worker is remote.py's business; what becomes of outcomes, run.py's.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ..errors import AimError
from . import remote
from .clips import Seen
from .job import Job, Outcome, error_line, question_dict
from .questions import Asked, Bad, Clip, Question

if TYPE_CHECKING:
    from distributed import Client, Future

_AT_ONCE = 500  # questions whose clips a worker looks at before it hears of anything else
_TICK = 0.2  # seconds between two looks at Ctrl-C and the clock
_LOOK = 2.0  # between two looks at which workers there are
_CONNECT = 10.0
_FETCH = 10.0  # for a result that its worker has
Task = tuple[int, Question]


class ClusterError(AimError):
    """A cluster that is not there, does not fit, or went away."""


class Cluster:
    """A connection to the scheduler at `address`. Use with `with`; raises ClusterError where it cannot be used."""

    def __init__(self, address: str) -> None:
        self.address, self.user = address, f"aim-local-{uuid.uuid4().hex[:12]}"
        self.client: Client = _connected(address)
        try:
            self.hosts = self._hosts()
        except BaseException:
            self.close()
            raise

    def _hosts(self) -> dict[str, str]:
        """By address, the machine of each worker. Raises ClusterError for one that has not what we have."""
        found = self.on_all(remote.introduce)
        if not found:
            raise ClusterError(f"{self.address}: no worker is there; start some with `dask worker {self.address}`")
        ours = remote.versions()
        for worker, said in found.items():
            for name, version in ours.items():
                there = said["versions"].get(name)
                if there != version:
                    raise ClusterError(
                        f"worker {worker} ({said['host']}) has {name} {there}, here it is {version}; install the same "
                        "version everywhere"
                    )
        return {worker: str(said["host"]) for worker, said in found.items()}

    def on_all(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """What `function` returns on each worker there is, by address. Raises ClusterError."""
        try:
            found: dict[str, Any] = self.client.run(function, *args, on_error="return")
        except Exception as e:  # Dask raises many kinds where the scheduler or a worker is gone
            raise self.failure(e) from e
        for worker, value in found.items():
            if isinstance(value, BaseException) and "No module named 'aim_local'" in str(value):
                raise ClusterError(f"worker {worker} has no aim-local; install the version that is here") from value
            if isinstance(value, BaseException):
                raise ClusterError(
                    f"worker {worker}: {type(value).__name__}: {' '.join(str(value).split())}"
                ) from value
        return found

    def gone(self) -> ClusterError:
        return ClusterError(
            f"{self.address}: the scheduler is gone, or cannot be reached any more; what is done is kept, and the same "
            "command goes on from there"
        )

    def failure(self, e: Exception) -> ClusterError:
        """What to raise for an error of Dask's client."""
        if self.client.status != "running":
            return self.gone()
        return ClusterError(f"{self.address}: {type(e).__name__}: {' '.join(str(e).split())}")

    # --- clips, where they are ---

    def unreadable(self, questions: Sequence[Sequence[Clip]]) -> dict[int, str]:
        """By index, why the clips of a question cannot be read on a worker, the first that says so."""
        bad = dict[int, str]()
        for first in range(0, len(questions), _AT_ONCE):
            plain = [_plain(clips) for clips in questions[first : first + _AT_ONCE]]
            for worker, problems in self.on_all(remote.clip_problems, plain).items():
                where = f"on worker {worker} ({self.hosts.get(worker, 'new')})"
                for i, problem in enumerate(problems, first):
                    if problem:
                        bad.setdefault(i, f"{where}: {problem}; a clip needs the same path everywhere")
        return bad

    def check_clips(self, asked: Asked) -> Asked:
        """As questions.check_clips: every clip has to be readable on every worker."""
        questions = [line for line in asked.lines if isinstance(line, Question)]
        problems = self.unreadable([line.clips for line in questions])
        bad = {questions[i].n: Bad.of(questions[i].id, f"line {questions[i].n}: {why}") for i, why in problems.items()}
        lines = [bad.get(line.n, line) if isinstance(line, Question) else line for line in asked.lines]
        return Asked(asked.name, tuple(lines))

    def first_changed(self, answered: Sequence[tuple[Sequence[Clip], Sequence[Seen]]]) -> str | None:
        """As clips.first_changed, on one of the workers."""
        if not answered:
            return None
        plain = [(_plain(clips), list(seen)) for clips, seen in answered]
        try:
            name: str | None = self.client.submit(remote.changed_clip, plain, pure=False).result()
        except Exception as e:
            raise self.failure(e) from e
        return name

    # --- life cycle ---

    def close(self) -> None:
        """Ends what this run has on the workers, and the connection."""
        with contextlib.suppress(Exception):
            if self.client.status == "running":
                self.client.run(remote.release, self.user, on_error="ignore")
        with contextlib.suppress(Exception):
            self.client.close(timeout=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class ClusterWorkers:
    """The workers of a cluster as who answers, see run.Workers. digests: sha256 of the model's files."""

    def __init__(self, cluster: Cluster, job: Job, digests: Sequence[str]) -> None:
        self._cluster, self._client, self.notes = cluster, cluster.client, list[str]()
        self._order = {
            "user": cluster.user,
            "versions": remote.versions(),
            "job": job.to_dict(),
            "shares": dict(Counter(map(remote.machine_of, cluster.hosts))),
            "digests": list(digests),
        }
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._open: dict[Future, Task] = {}
        self._looked, self._n = 0.0, len(cluster.hosts)

    def first_changed(self, answered: Sequence[tuple[Sequence[Clip], Sequence[Seen]]]) -> str | None:
        return self._cluster.first_changed(answered)

    def answers(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """Outcomes in the order in which they are there; None now and then while there is none.

        Raises ClusterError where the scheduler is gone or a worker cannot go on.
        """
        left = iter(tasks)
        n_left = len(tasks)
        while n_left:
            self._check()
            self._fill(left)
            try:
                future = self._done.get(timeout=_TICK)
            except queue.Empty:
                yield None
                continue
            found = self._taken(future)
            if found is not None:
                n_left -= 1
            yield found

    def _fill(self, left: Iterator[Task]) -> None:
        """Keeps as many questions under way as there are workers."""
        while len(self._open) < max(1, self._n):
            task = next(left, None)
            if task is None:
                return
            index, question = task
            order = {**self._order, "index": index, "question": question_dict(question)}
            try:
                future = self._client.submit(
                    remote.answer_there, order, key=f"{self._cluster.user}-{index}", pure=False
                )
                self._open[future] = task
                future.add_done_callback(self._done.put)
            except Exception as e:
                raise self._cluster.failure(e) from e

    def _check(self) -> None:
        """Raises ClusterError where the scheduler is gone; looks who works now and then."""
        if self._client.status != "running":
            raise self._cluster.gone()
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        try:
            self._n = len(self._client.nthreads())
        except Exception as e:
            raise self._cluster.failure(e) from e
        if self._n == 0 and _NOBODY not in self.notes:
            self.notes.append(_NOBODY)

    def _taken(self, future: Future) -> Outcome | None:
        """What a question that ended brought; None where that cannot be fetched yet."""
        from distributed import KilledWorker

        index, question = self._open[future]
        if future.status in ("cancelled", "lost"):
            raise self._cluster.gone()
        try:
            found = future.result(timeout=_FETCH)
        except TimeoutError:
            self._done.put(future)
            return None
        except KilledWorker:
            del self._open[future]
            reason = "the workers that tried it were lost, one after the other"
            return Outcome(index, error_line(question.id, reason), {})
        except Exception as e:
            raise self._cluster.failure(e) from e
        del self._open[future]
        if "fatal" in found:
            raise ClusterError(str(found["fatal"]))
        self.notes += [note for note in found["notes"] if note not in self.notes]
        return Outcome(**found["outcome"])

    def finished(self) -> Iterator[Outcome]:
        """Outcomes that are there and were not taken yet."""
        with contextlib.suppress(AimError, queue.Empty):
            while self._client.status == "running":
                found = self._taken(self._done.get_nowait())
                if found is None:
                    return
                yield found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        with contextlib.suppress(Exception):
            self._client.cancel(list(self._open))


_NOBODY = "no worker is there any more; waiting for one"


def _plain(clips: Sequence[Clip]) -> list[dict[str, str]]:
    return [dict(clip.__dict__) for clip in clips]


def _connected(address: str) -> Client:
    """Raises ClusterError."""
    try:
        import dask
        from distributed import Client
    except ModuleNotFoundError as e:
        raise ClusterError(
            f"a cluster needs the package {e.name}; run in the source folder: pip install -e '.[cluster]'"
        ) from e
    for name in ("distributed", "distributed.client", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong is told in one line of ours
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})  # logits of compare go with a question
    _check_port(address)
    try:
        return Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as e:
        raise _no_scheduler(address, " ".join(str(e).split()) or type(e).__name__) from e


def _check_port(address: str) -> None:
    """Raises ClusterError where nobody listens: Dask's client would try again and again until its time is over."""
    try:
        place = urlsplit(address if "://" in address else f"tcp://{address}")
        host, port = place.hostname, place.port
    except ValueError as e:
        raise ClusterError(f"{address!r} is no address of a scheduler; give one such as tcp://10.0.0.5:8786") from e
    if host is None or port is None:
        raise ClusterError(f"{address!r} is no address of a scheduler; give one such as tcp://10.0.0.5:8786")
    try:
        socket.create_connection((host, port), timeout=_CONNECT).close()
    except (OSError, UnicodeError) as e:  # the second for a name that cannot be one
        raise _no_scheduler(address, getattr(e, "strerror", None) or str(e)) from e


def _no_scheduler(address: str, reason: str) -> ClusterError:
    return ClusterError(f"{address}: no Dask scheduler answers there ({reason}); start one with `dask scheduler`")
