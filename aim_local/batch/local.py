"""Workers on this machine: one process each, a thread here for each of them that hands it one question after the other.

Knows threads and queues. What a worker is, is process.py's business; what becomes of outcomes, run.py's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from ..store.encoded import sweep_clips
from .clips import Seen, first_changed
from .job import Job, Outcome
from .process import StoppedError, Worker
from .questions import Clip, Question

_TICK = 0.2  # seconds between two looks at Ctrl-C and the clock
Task = tuple[int, Question]


class LocalWorkers:
    """n processes that load the model once each. Own it: `with`; its end ends them, whatever they are at."""

    def __init__(self, job: Job, n: int) -> None:
        self._workers = [Worker(job, f"worker {i + 1}") for i in range(n)]
        self._todo = queue.SimpleQueue[Task]()
        self._done = queue.SimpleQueue[Outcome | BaseException]()
        self._threads = list[threading.Thread]()

    def first_changed(self, answered: Sequence[tuple[Sequence[Clip], Sequence[Seen]]]) -> str | None:
        found = first_changed(answered)
        return found.name if found else None

    def answers(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """Outcomes in the order in which they are there; None now and then while there is none.

        Raises what keeps the model from being loaded.
        """
        for task in tasks:
            self._todo.put(task)
        self._threads = [
            threading.Thread(target=self._hand_out, args=(worker,), daemon=True)
            for worker in self._workers[: len(tasks)]
        ]
        for thread in self._threads:
            thread.start()
        n = 0
        while n < len(tasks):
            try:
                found = self._done.get(timeout=_TICK)
            except queue.Empty:
                yield None
                continue
            if isinstance(found, BaseException):
                raise found
            n += 1
            yield found

    def finished(self) -> Iterator[Outcome]:
        """Outcomes that are there and were not taken yet."""
        while True:
            try:
                found = self._done.get_nowait()
            except queue.Empty:
                return
            if isinstance(found, Outcome):
                yield found

    @property
    def notes(self) -> list[str]:
        """What the model's loading had to say, once."""
        return list(dict.fromkeys(note for worker in self._workers for note in worker.notes))

    def _hand_out(self, worker: Worker) -> None:
        try:
            while True:
                self._done.put(worker.answer(*self._todo.get_nowait()))
        except (queue.Empty, StoppedError):
            pass
        except BaseException as e:  # the model cannot be loaded, or a fault of ours: raised where outcomes are awaited
            self._done.put(e)
        finally:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join()
        sweep_clips()
