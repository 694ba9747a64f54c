"""What runs on a worker of a Dask cluster: functions on plain values, and the one process there that has the model.

A worker of the cluster computes nothing itself. It keeps one process of ours (process.py), for the model and the load
options that were asked last: loaded once, one question at a time, gone when the run ends, when it is idle for long, or
when its worker is. Knows files of this machine. Who gives work to whom is cluster.py's business.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from ..errors import AimError, ModelError
from ..native.bindings import bindings_version
from ..store import ModelPaths, resolve
from ..store.digests import known_digest
from .clips import first_changed
from .job import Job, job_of, question_from
from .process import Worker
from .questions import Clip, clip_problem

IDLE_SECONDS = 300.0  # then a process that nobody asks anything ends: its client may be gone
Plain = dict[str, Any]  # values that any version of Dask's serialisation takes


def versions() -> Plain:
    """What has to be equal on both sides, by name."""
    return {"aim-local": version("aim-local"), "llama-cpp-python": bindings_version()}


def introduce() -> Plain:
    """This worker's versions and the name of its machine."""
    return {"versions": versions(), "host": socket.gethostname()}


def clip_problems(questions: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """For the clips of each question, why they cannot be read here; "" where they can."""
    return [clip_problem([Clip(**clip) for clip in clips]) for clips in questions]


def changed_clip(answered: Sequence[tuple[Sequence[Mapping[str, str]], Sequence[Any]]]) -> str | None:
    """The name of the first clip that is not what was seen, see clips.first_changed."""
    found = first_changed([([Clip(**clip) for clip in clips], seen) for clips, seen in answered])
    return found.name if found else None


class Process(Protocol):
    """What is kept: `stop` ends it from any thread, `close` in the end."""

    def stop(self) -> None: ...

    def close(self) -> None: ...


P = TypeVar("P", bound=Process)


class Keeper:
    """The one process of this worker, for the key it was made for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while it is at work: one call at a time
        self._process: Process | None = None
        self._key: object = None
        self._user = ""
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def using(self, user: str, key: object, make: Callable[[], P]) -> Iterator[P]:
        """The process for `key`, made where there is another one. user: who may stop it."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            process = self._process
            if process is None or self._key != key:
                self._drop()
                process = make()
                self._process, self._key = process, key
            self._user = user
            try:
                yield cast(P, process)  # made by a `make` for the same key
            except BaseException:
                self._drop()
                raise
            finally:
                self._timer = threading.Timer(IDLE_SECONDS, self.forget, (user,))
                self._timer.daemon = True
                self._timer.start()

    def stop(self, user: str) -> None:
        """Ends the process if `user` was the last to use it, even at work."""
        process = self._process
        if process is not None and self._user == user:
            process.stop()
        self.forget(user)

    def forget(self, user: str) -> None:
        """Ends the process if `user` was the last to use it and it is not at work for another one."""
        if self._lock.acquire(timeout=10):
            try:
                if self._user == user:
                    self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        if self._process is not None:
            self._process.close()
        self._process, self._key = None, None


KEPT = Keeper()


def release(user: str) -> None:
    """The run `user` is over, or given up."""
    KEPT.stop(user)


def answer_there(order: Plain) -> Plain:
    """One question of a run. {"outcome": ...}, or {"fatal": why the run cannot go on}."""
    try:
        check_versions(order["versions"])
        here = own_address()
        share, key = order["shares"].get(machine_of(here), 1), (order["digests"], order["job"])

        def make() -> Worker:
            return Worker(job_here(order["job"], order["digests"], share), here)

        with KEPT.using(order["user"], key, make) as worker:
            found = worker.answer(order["index"], question_from(order["question"]))
            facts = {**found.facts, "worker": here}
            return {"outcome": {**found.__dict__, "facts": facts}, "notes": worker.notes}
    except (AimError, OSError) as e:
        return {"fatal": f"on {socket.gethostname()}: {' '.join(str(e).split())}"}


def own_address() -> str:
    from distributed import get_worker

    return str(get_worker().address)


def machine_of(address: str) -> str:
    """What the addresses of workers on one machine share."""
    return address.rpartition(":")[0]


def check_versions(wanted: Mapping[str, str]) -> None:
    """Raises AimError where this worker is of another version than who asks."""
    here = versions()
    for name, asked in wanted.items():
        if here.get(name) != asked:
            raise AimError(
                f"{name} {here.get(name, 'is not there')} here and {asked} where the run was started; install the same "
                "version everywhere"
            )


def job_here(asked: Mapping[str, Any], digests: Sequence[str], share: int) -> Job:
    """The job with the model's files on this machine. Raises ModelError."""
    job = Job.from_dict(asked)
    there = ModelPaths(job.name, Path(job.model), Path(job.mmproj) if job.mmproj else None)
    return job_of(model_here(there, digests), job.settings, share)


def model_here(there: ModelPaths, digests: Sequence[str]) -> ModelPaths:
    """The files of a model on this machine: under the same path, else under the same name in the store.

    there: where the run was started. digests: sha256 of each file. Raises ModelError where neither has the same bytes.
    """
    tried = list[str]()
    for paths in (there, _by_name(there.name)):
        if paths is None or not all(path.is_file() for path in paths.files):
            continue
        if [known_digest(path) for path in paths.files] == list(digests):
            return paths
        tried.append(str(paths.model))
    what = f"{' and '.join(tried)} has other bytes" if tried else f"{there.model} is not there, nor in the store"
    raise ModelError(
        f"{there.name}: {what}; every worker needs the model's files as they are where the run was started"
    )


def _by_name(name: str) -> ModelPaths | None:
    try:
        return resolve(name)
    except AimError:
        return None
