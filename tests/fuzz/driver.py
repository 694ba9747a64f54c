"""Gives numbers out to children until time or mutants are used up; saves what they find and keeps the tally."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz import target as targets
from fuzz.findings import Finding, noted
from fuzz.outcome import Outcome
from fuzz.process import Child
from fuzz.tally import State, Tally

SAVE_EVERY_S = 10.0


@dataclass(frozen=True)
class Bounds:
    """Of one target's run. seconds: of the clock; None for no bound."""

    seconds: float | None = None
    mutants: int | None = None
    jobs: int = 2


class Run:
    """Of one target. told: called with a line for each finding not seen before."""

    def __init__(self, name: str, tally: Tally, state: State, out: Path, told: Callable[[str], None]) -> None:
        self.target, self.tally, self.state, self.out, self.told = targets.load(name), tally, state, out, told
        self._lock = threading.Lock()
        self._done: set[int] = set()  # numbers beyond tally.next
        self._stop = threading.Event()

    def go(self, bounds: Bounds) -> None:
        """Until a bound is reached, or this is interrupted."""
        begin, base = time.monotonic(), self.tally.seconds
        self._given, self._end = self.tally.next, None if bounds.seconds is None else begin + bounds.seconds
        self._last = None if bounds.mutants is None else self._given + bounds.mutants
        with ThreadPoolExecutor(bounds.jobs) as pool:
            try:
                tasks = [pool.submit(self._work) for _ in range(bounds.jobs)]
                while not all(task.done() for task in tasks):
                    self._stop.wait(SAVE_EVERY_S if bounds.mutants is None else 0.2)
                    self._save(base + time.monotonic() - begin)
                for task in tasks:
                    task.result()
            finally:
                self._stop.set()
        self._save(base + time.monotonic() - begin)

    def _save(self, seconds: float) -> None:
        with self._lock:
            self.tally.seconds = seconds
            self.state.save()

    def _take(self) -> int | None:
        with self._lock:
            late = self._end is not None and time.monotonic() > self._end
            if self._stop.is_set() or late or self._given == self._last:
                return None
            self._given += 1
            return self._given - 1

    def _work(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{self.target.name}-"))
        try:
            with Child(self.target.name, folder, self.tally.seed, self.target.memory_mib) as child:
                while (number := self._take()) is not None:
                    self._record(number, self._certain(child, number), child)
        except BaseException:
            self._stop.set()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _certain(self, child: Child, number: int) -> Outcome:
        """A hang must show twice: the machine may have been busy with something else."""
        found = child.mutant(number)
        return child.mutant(number) if found.kind == "hang" else found

    def _record(self, number: int, outcome: Outcome, child: Child) -> None:
        finding = None if outcome.passed else Finding(self.target.name, outcome, self.tally.seed, number)
        with self._lock:
            new = self.tally.add(outcome, finding.name if finding else "")
            self._done.add(number)
            while self.tally.next in self._done:
                self._done.remove(self.tally.next)
                self.tally.next += 1
        if finding and new:
            mutant = child.last_mutant
            path = finding.save(self.out, mutant.read_bytes(), targets.suffix_of(mutant, self.target.suffixes))
            self.told(f"{self.target.name}: {outcome.kind} at {outcome.place}: {path}")


def read_known(name: str) -> list[Outcome]:
    """Of each seed, and of each file that was a finding once, by one child."""
    target = targets.load(name)
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    kept = [path for path in targets.files_in(targets.FINDINGS / name, target.suffixes) if not noted(path)]
    try:
        with Child(name, folder, 0, target.memory_mib) as child:
            return [*child.seeds(), *map(child.file, kept)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replay(name: str, path: Path) -> Outcome:
    """What one file does in a child of its own."""
    target = targets.load(name)
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    try:
        with Child(name, folder, 0, target.memory_mib) as child:
            return child.file(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
