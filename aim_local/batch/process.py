"""A worker's process as its parent sees it: started when it is needed, replaced when it dies, a question done again.

What the process does is worker.py's business; who gives it questions, local.py's and remote.py's.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

from ..child import Child, Message
from ..errors import AimError, NativeError
from .job import Job, Outcome, error_line, question_dict
from .questions import Question

COMMAND = ("-m", f"{__package__}.worker")  # of Python
TRIES = 2  # of a question whose worker dies, and of a worker that dies while it loads the model


class StoppedError(AimError):
    """The worker was stopped by another thread."""


class Worker:
    """Answers one question at a time. Own it: `close()` or `with`. `stop` may come from any thread.

    name: in messages. notes: what the model's loading had to say.
    """

    def __init__(self, job: Job, name: str) -> None:
        self.job, self.name, self.notes = job, name, tuple[str, ...]()
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def answer(self, index: int, question: Question) -> Outcome:
        """Raises NativeError where no process can load the model, ModelError and the like as the process says."""
        death = ""
        for tries in range(1, TRIES + 1):
            child = self._child or self._start()
            child.send(question=question_dict(question))
            found = child.receive()
            if found is not None and "line" in found:
                facts = {**found["facts"], "tries": tries, "worker": self.name, "host": socket.gethostname()}
                return Outcome(index, found["line"], facts)
            death = self._bury(child, found)
        reason = f"the process that answered ended {TRIES} times: {death}"
        return Outcome(index, error_line(question.id, reason), {"tries": TRIES, "worker": self.name})

    def start(self) -> None:
        """Loads the model now; `answer` does it else. Raises as `answer` does."""
        if self._child is None:
            self._start()

    def _start(self) -> Child:
        death = ""
        for _ in range(TRIES):
            child = self._new()
            child.send(**self.job.to_dict())
            said = child.receive()
            if said is not None and said.get("ready"):
                self.notes = tuple(said["notes"])
                return child
            death = self._bury(child, said)
            if said is not None:
                raise AimError(death)
        raise NativeError(f"{self.job.name}: {death}, while the model was loaded; fewer workers need less memory")

    def _new(self) -> Child:
        with self._lock:
            if self._stopped:
                raise StoppedError(f"{self.name}: stopped")
            self._child = Child(self.job.name, COMMAND)
            return self._child

    def _bury(self, child: Child, said: Message | None) -> str:
        """Closes a process that gave no answer; returns why it did not."""
        reason = str(said["failed"]) if said is not None else child.death()
        self._child = None
        child.close()
        if self._stopped:
            raise StoppedError(f"{self.name}: stopped")
        return reason

    def stop(self) -> None:
        """Ends its process; `answer` raises StoppedError then."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        self.stop()
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
