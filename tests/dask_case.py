"""A Dask cluster on this machine for tests: a scheduler and workers in processes of their own, closed for sure."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from run_case import environment

_START = 60.0  # seconds, a generous end to a hang


class LocalDask:
    """A scheduler and its workers. Each ends by itself when it is left alone; `with` ends all of them."""

    def __init__(self, folder: Path, n: int) -> None:
        self._folder, self._file, self._n = folder, folder / "scheduler.json", 0
        idle = ["--idle-timeout", "120 seconds", "--no-dashboard", "--no-show"]
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self._file), *idle
        )
        self.workers = list[subprocess.Popen[bytes]]()
        for _ in range(n):
            self.add_worker()
        self._wait(lambda: self._file.exists() and self._file.read_text())
        self.address: str = json.loads(self._file.read_text())["address"]
        for i in range(n):
            self._wait_for_worker(i)

    def replace_worker(self, n: int) -> None:
        """A new one in the place of the n-th, which was killed."""
        self.workers[n].wait()
        self.add_worker()
        self.workers[n] = self.workers.pop()
        self._wait_for_worker(self._n - 1)

    def _wait_for_worker(self, number: int) -> None:
        self._wait(lambda: "Registered to" in self._log(f"worker-{number}"))

    def add_worker(self) -> None:
        name, self._n = f"worker-{self._n}", self._n + 1
        alone = ["--no-nanny", "--no-dashboard", "--nthreads", "2", "--death-timeout", "10"]
        self.workers.append(self._start("worker", *alone, "--scheduler-file", str(self._file), name=name))

    def processes_of(self, n: int) -> list[psutil.Process]:
        """Ours, on the n-th worker."""
        return psutil.Process(self.workers[n].pid).children(recursive=True)

    def _start(self, command: str, *arguments: str, name: str = "") -> subprocess.Popen[bytes]:
        local = ["--local-directory", str(self._folder)] if command == "worker" else []
        with open(self._folder / f"{name or command}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{command}", *arguments, *local],
                stdout=log,
                stderr=log,
                env=environment(self._folder),
            )

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _wait(self, is_there: object) -> None:
        assert callable(is_there)
        deadline = time.monotonic() + _START
        while not is_there():
            assert all(process.poll() is None for process in (self.scheduler, *self.workers)), self._log("scheduler")
            assert time.monotonic() < deadline, self._log("scheduler")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
        for process in (*self.workers, self.scheduler):
            process.wait()
