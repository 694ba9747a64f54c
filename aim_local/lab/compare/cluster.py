"""Cells on the workers of a Dask cluster: a worker for each cell as far as there are any, one question after the other.

A cell keeps to its worker, so that its times are of one machine; where the worker is lost, Dask gives the question to
another one and the cell goes on there. Rows and logits are written here, as a cell's process writes them (cell.py).
What runs on a worker is remote.py's business, which cells there are the runner's.
"""

from __future__ import annotations

import os
import queue
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...batch import remote
from ...batch.cluster import Cluster
from ...batch.files import append_line
from ...batch.process import StoppedError
from ...batch.questions import Clip
from ...batch.run import model_digest
from ...errors import SuiteError
from ...store import ModelPaths
from ...store.files import replaced
from .cell import logits_path
from .job import Job, Task, task_dict
from .matrix import Cell
from .records import Suite
from .remote import answer_item

if TYPE_CHECKING:
    from distributed import Future

_LOOK = 0.5  # seconds between two looks at whether to stop


class CellCluster:
    """Runs cells on the workers of `cluster`, see runner.Crew. Raises SuiteError where a clip cannot be read there."""

    def __init__(self, cluster: Cluster, suite: Suite) -> None:
        self._cluster = cluster
        self._lane = threading.local()  # .worker: the address that this thread's cells keep to
        self._stopped = threading.Event()
        clips = [[Clip("media", str(path), str(path.absolute())) for path in item.media] for item in suite.items]
        for i, why in cluster.unreadable(clips).items():
            raise SuiteError(f"{suite.name}: question {suite.items[i].id}: {why}")

    @property
    def notes(self) -> list[str]:
        """What is to be known of its times."""
        shared = [host for host, n in Counter(self._cluster.hosts.values()).items() if n > 1]
        return [
            f"several workers share {host}: times that are measured there at once disturb each other" for host in shared
        ]

    def each(self, cells: Sequence[Cell], do: Callable[[Cell], None]) -> None:
        """`do` for every cell, so many at once as there are workers. Raises what ends one of them."""
        left, failed = queue.SimpleQueue[Cell](), list[BaseException]()
        for cell in cells:
            left.put(cell)

        def work(worker: str) -> None:
            self._lane.worker = worker
            try:
                while not self._stopped.is_set():
                    do(left.get_nowait())
            except (queue.Empty, StoppedError):
                pass
            except BaseException as e:  # raised below, in the thread that waits
                failed.append(e)
                self._stopped.set()

        workers = list(self._cluster.hosts)[: max(1, len(cells))]
        threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_LOOK)
        except BaseException:  # interrupted: what is under way ends
            self._stopped.set()
            for thread in threads:
                thread.join()
            raise
        if failed:
            raise failed[0]

    def run(self, job: Job, log: Path, on_item: Callable[[], None]) -> str:
        """The cell's tasks; returns why it failed, "" if it did not. log: not used, what a worker logs stays there.

        Raises StoppedError, ClusterError.
        """
        order = {
            "user": self._cluster.user,
            "key": uuid.uuid4().hex,
            "versions": remote.versions(),
            "digests": model_digest(ModelPaths(job.name, job.model, job.mmproj)),
            "job": replace(job, tasks=(), stays=True).to_dict(),
        }
        file = os.open(job.results, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            for task in job.tasks:
                found = self._ask(job, task, order)
                if "failed" in found:
                    return str(found["failed"])
                if found["logits"] is not None:
                    with replaced(logits_path(job.logits, task.n)) as partial:
                        partial.write_bytes(found["logits"])
                append_line(job.results, file, found["row"])
                on_item()
        finally:
            os.close(file)
        return ""

    def _ask(self, job: Job, task: Task, order: dict[str, Any]) -> dict[str, Any]:
        """What the worker of this thread, or another one where it is lost, found."""
        logits = logits_path(job.logits, task.n).read_bytes() if job.role == "paired" else None
        whole = {**order, "task": task_dict(task), "logits": logits}
        try:
            future = self._cluster.client.submit(
                answer_item, whole, pure=False, workers=[self._lane.worker], allow_other_workers=True
            )
        except Exception as e:
            raise self._cluster.failure(e) from e
        found = self._result(future)
        if "stopped" in found:
            raise StoppedError("stopped")
        self._lane.worker = found.get("worker", self._lane.worker)
        return found

    def _result(self, future: Future) -> dict[str, Any]:
        from distributed import KilledWorker

        while not self._stopped.is_set():
            try:
                found: dict[str, Any] = future.result(timeout=_LOOK)
                return found
            except TimeoutError:
                if self._cluster.client.status != "running":
                    raise self._cluster.gone() from None
            except KilledWorker:
                return {"failed": "the workers that tried it were lost, one after the other"}
            except Exception as e:
                raise self._cluster.failure(e) from e
        future.cancel()
        raise StoppedError("stopped")
