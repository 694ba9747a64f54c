"""A cell's questions on a worker of a Dask cluster: in a process of its own there, which stays for the cell.

What is kept on a worker, and how the model is found there, is batch/remote.py's business. The reference's logits come
and go as bytes of .npy files.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...batch.process import StoppedError
from ...batch.remote import KEPT, check_versions, model_here, own_address
from ...errors import AimError
from ...models.threads import physical_cores
from ...store import ModelPaths
from ..doctor import processor
from .cell import logits_path
from .job import Job, Task, task_from
from .process import CellProcess, FailedError


class HeldCell:
    """A cell's process with a folder of its own for logits, results and what it logs."""

    def __init__(self, job: Job, digests: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aim-local-cell-")
        folder = Path(self._folder.name)
        there = model_here(ModelPaths(job.name, job.model, job.mmproj), digests)
        self._logits = folder
        job = replace(job, model=there.model, mmproj=there.mmproj, results=folder / "items.jsonl", logits=folder)
        self._process = CellProcess(job, folder / "log.txt")

    def answer(self, task: Task, logits: bytes | None) -> tuple[dict[str, Any], bytes | None]:
        """The row, and the logits that the reference wrote. logits: those that a paired cell is compared with."""
        path = logits_path(self._logits, task.n)
        if logits is not None:
            path.write_bytes(logits)
        try:
            row = self._process.answer(task)
            return row, path.read_bytes() if logits is None and path.exists() else None
        finally:
            path.unlink(missing_ok=True)

    def stop(self) -> None:
        self._process.stop()

    def close(self) -> None:
        self._process.close()
        self._folder.cleanup()


def machine_here() -> str:
    """How figures of this machine are labelled."""
    return f"{socket.gethostname()} ({processor()}, {physical_cores()} cores)"


def answer_item(order: Mapping[str, Any]) -> dict[str, Any]:
    """One question of a cell: {"row", "logits", "worker"}, {"failed": why the cell cannot go on}, or {"stopped"}."""
    try:
        check_versions(order["versions"])
        job, digests = Job.from_dict(order["job"]), order["digests"]
        with KEPT.using(order["user"], order["key"], lambda: HeldCell(job, digests)) as held:
            row, logits = held.answer(task_from(order["task"]), order["logits"])
        return {"row": {**row, "machine": machine_here()}, "logits": logits, "worker": own_address()}
    except StoppedError:
        return {"stopped": True}
    except FailedError as e:
        return {"failed": str(e)}
    except (AimError, OSError) as e:
        return {"failed": f"on {socket.gethostname()}: {' '.join(str(e).split())}"}
