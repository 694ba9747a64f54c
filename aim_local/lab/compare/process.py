"""A cell's process as its parent sees it: what is done as it goes on, and why it failed.

What the process does is cell.py's business.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...batch.process import StoppedError
from ...child import Child
from ...errors import NO_EXCEPTION, AimError
from ...store.encoded import sweep_clips
from .job import Job, Task, task_dict


def run_process(job: Job, log: Path, on_item: Callable[[], None], held: tuple[int, ...]) -> str:
    """A cell's process from start to end; returns why it failed in one line, "" if it did not."""
    reason = ""
    with ExitStack() as stack:
        stack.callback(sweep_clips)  # behind the process's end
        child = stack.enter_context(Child(job.name, ["-m", f"{__package__}.cell"], log=log, held=held))
        child.send(**job.to_dict())
        while (event := child.receive()) is not None:
            if event.get("event") == "item":
                on_item()
            elif event.get("event") == "failed":
                reason = str(event.get("reason"))
        if child.wait() == 0 and not reason:
            return ""
        return _with_limit(reason or child.death(), job.options.memory_limit)


class FailedError(AimError):
    """The cell's process ended; the message says why."""


class CellProcess:
    """A cell's process that gets one task after the other. Own it: `close()`. `stop` may come from any thread."""

    def __init__(self, job: Job, log: Path) -> None:
        self._limit, self._stopped = job.options.memory_limit, False
        self._child = Child(job.name, ["-m", f"{__package__}.cell"], log=log)
        self._child.send(**job.to_dict())

    def answer(self, task: Task) -> dict[str, Any]:
        """The fields of its ItemResult. Raises FailedError."""
        self._child.send(task=task_dict(task))
        event = self._child.receive()
        if event is not None and event.get("event") == "item":
            row: dict[str, Any] = event["row"]
            return row
        if self._stopped:
            raise StoppedError("stopped")
        reason = str(event["reason"]) if event is not None else self._child.death()
        raise FailedError(_with_limit(reason, self._limit))

    def stop(self) -> None:
        self._stopped = True
        self._child.kill()

    def close(self) -> None:
        self._child.close()


# what a limit on address space looks like from Python, from the loader, from ggml and from threads that cannot start
_NO_MEMORY = (
    "memory",
    "alloc",
    "map segment",
    "thread",
    "temporarily unavailable",
    "buffer",
    "SIGSEGV",
    "SIGABRT",
    *NO_EXCEPTION,
)


def _with_limit(reason: str, limit: int | None) -> str:
    """The reason, with the memory limit where it is the likely cause."""
    if limit is None or not any(word in reason for word in _NO_MEMORY):
        return reason
    return f"out of memory, the limit is {limit / 2**20:.0f} MiB ({reason})"
