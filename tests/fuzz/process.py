"""A child as the driver sees it: asked for one file at a time, ended and renewed when it hangs, grows or is gone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from fuzz import sanitizer
from fuzz.outcome import LAST_LINES, ROOT, Outcome, place_in_log

HANG_S, START_S = 20.0 * sanitizer.SLOWER, 600.0
TICK_S, LONGEST_TICK_S = 0.02, 0.5  # a tick that took longer was this process standing still: it counts as the longest
RENEWED_AFTER = 1000  # files
CHILDREN_MIB = 2048 * sanitizer.SLOWER  # of all that a child has started
PAGE = os.sysconf("SC_PAGE_SIZE")


class BrokenTarget(Exception):
    """A target that cannot make its seeds, or does not read them."""


class Child:
    """Of one target. folder: its own, for seeds, mutants, user state and its log."""

    def __init__(
        self,
        name: str,
        folder: Path,
        seed: int,
        memory_mib: int,
        *,
        hang_s: float = HANG_S,
        given: Mapping[str, str] | None = None,
    ) -> None:
        """given: further variables of its environment."""
        self.name, self.folder, self.seed, self.memory_mib, self._hang_s = name, folder, seed, memory_mib, hang_s
        self._given = given or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._n_read, self._rest = 0, b""
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def mutant(self, number: int) -> Outcome:
        return self._reported(self._ask({"number": number}))

    def file(self, path: Path) -> Outcome:
        return self._reported(self._ask({"path": str(path.resolve())}))

    def seeds(self) -> Iterator[Outcome]:
        """Of each valid file, those of the corpus too."""
        if self._process is None:
            self._start()
        for number in range(self._n_seeds):
            yield self._reported(self._ask({"seed": number}))

    def _reported(self, outcome: Outcome) -> Outcome:
        """It, or what a sanitizer said meanwhile, in the child or in one of its own."""
        report = sanitizer.taken(self._reports)
        return replace(outcome, kind="report", place=sanitizer.place(report), told=report) if report else outcome

    @property
    def _reports(self) -> Path:
        return self.folder / "reports"

    @property
    def last_mutant(self) -> Path:
        return next((self.folder / "mutant").iterdir())

    def end(self) -> None:
        """It, and what it has started."""
        if self._process is None:
            return
        for pid in (*descendants(self._process.pid), self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process.communicate()
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fuzz.child", self.name, str(self.folder), str(self.seed)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env={**os.environ, **own_state(self.folder), **sanitizer.environment(self._reports), **self._given},
            start_new_session=True,  # Ctrl-C is for the driver, which ends its children
        )
        self._rest, self._n_read = b"", 0
        told = self._line(START_S, None)
        reported = sanitizer.taken(self._reports)
        if reported or not isinstance(told, dict) or "ready" not in told:
            why = told.get("broken") if isinstance(told, dict) else f"{told}: {self._log()[-1500:]}"
            why = f"its seeds bring a report: {sanitizer.place(reported)}\n{reported}" if reported else why
            self.end()
            raise BrokenTarget(f"{self.name}: {why}")
        self._n_seeds: int = told["ready"]
        return self._process

    def _ask(self, what: Mapping[str, Any]) -> Outcome:
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(what).encode() + b"\n")
        process.stdin.flush()
        made = self._line(START_S, None)
        if not isinstance(made, dict) or "made" not in made:
            raise BrokenTarget(f"{self.name}: {made['broken'] if isinstance(made, dict) else f'no mutant, {made}'}")
        base, begin = resident(process.pid), time.monotonic()
        told = self._line(self._hang_s, base)
        self._n_read += 1
        if isinstance(told, dict):
            if self._n_read >= RENEWED_AFTER:
                self.end()
            return Outcome(**told)
        seconds = time.monotonic() - begin
        if told != "signal":
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)  # faulthandler writes its dump meanwhile; nothing tells that it has
        mib = max(0.0, (resident(process.pid) - base) / 2**20)
        if told == "signal":
            process.wait()
        log, code = self._log(), process.poll()
        self.end()
        who = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        place = f"{who}, {place_in_log(log)}" if told == "signal" else place_in_log(log)
        return Outcome(told, place, "\n".join(log.strip().splitlines()[-4 * LAST_LINES :]), seconds, mib)

    def _line(self, patience_s: float, base: int | None) -> dict[str, Any] | str:
        """What it says next; else "signal" where it is gone, "hang", or "memory"."""
        assert self._process is not None
        assert self._process.stdout is not None
        out, waited, last = self._process.stdout.fileno(), 0.0, time.monotonic()
        while b"\n" not in self._rest:
            if select.select([out], [], [], TICK_S)[0]:
                data = os.read(out, 1 << 16)
                if not data:
                    return "signal"
                self._rest += data
                continue
            now = time.monotonic()
            waited, last = waited + min(now - last, LONGEST_TICK_S), now
            if waited > patience_s:
                return "hang"
            if base is not None and self._is_over(base):
                return "memory"
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def _is_over(self, base: int) -> bool:
        """Whether it has grown beyond its bound, or what it has started is beyond CHILDREN_MIB."""
        assert self._process is not None
        of_children = sum(resident(pid) for pid in descendants(self._process.pid))
        return resident(self._process.pid) - base > self.memory_mib << 20 or of_children > CHILDREN_MIB * 2**20

    def _log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""


def own_state(folder: Path) -> dict[str, str]:
    """The environment of a process that must not touch the user's home."""
    homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"), folder)
    paths = os.pathsep.join([str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return {
        **{name: str(path / "home") for name, path in homes.items()},
        "AIM_LOCAL_HOME": str(folder / "home" / "aim-local"),
        "PYTHONPATH": paths.rstrip(os.pathsep),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "HF_HUB_OFFLINE": "1",
    }


def resident(pid: int) -> int:
    """Bytes in memory of a process; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # gone meanwhile
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()):
                found += [*descendants(child), child]
    return found
