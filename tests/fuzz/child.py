"""The process that reads: one line in, a mutant's number or a file's path; out, that it is there, and what it came to.

It makes the seeds and reads some of them first: they must pass, and what they import is no growth of a mutant's read.
Those kept in the corpus need not: they may be there for the refusal that they reach.
Whatever is written to stdout or stderr meanwhile goes to a log, which begins anew with every file; so does a dump of
the threads, when the driver asks for one with SIGUSR1.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path

from fuzz import target as targets
from fuzz.outcome import ANSWER, Outcome, outcome_of

SPARE_BYTES = 4 << 30  # of address space, beside what the seeds needed: one allocation of that size fails
WARM = 3  # seeds that are read first


def main(name: str, folder: str, seed: int) -> None:
    work = Path(folder)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(log)
    faulthandler.register(signal.SIGUSR1, log, all_threads=True)
    target = targets.load(name)
    seeds = target.all_seeds(work / "seeds")
    made = [path for path in seeds if path.is_relative_to(work)] or seeds
    for path in made[:: max(1, len(made) // WARM)][:WARM]:
        found = outcome_of(target.read, path)
        if found.kind != ANSWER:
            answers.write(json.dumps({"broken": f"the seed {path.name} does not pass: {found}"}) + "\n")
            return
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") * 1024 + SPARE_BYTES, resource.RLIM_INFINITY))
    answers.write(json.dumps({"ready": len(seeds)}) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        os.ftruncate(log, 0)
        try:
            path = asked.get("path") or file_asked(asked, target, seeds, seed, work)
        except Exception:
            answers.write(json.dumps({"broken": f"mutant {asked['number']}: {traceback.format_exc(limit=-3)}"}) + "\n")
            return
        answers.write(json.dumps({"made": str(path)}) + "\n")
        answers.write(json.dumps(dataclasses.asdict(measured(target, Path(path)))) + "\n")


def file_asked(asked: dict[str, int], target: targets.Target, seeds: list[Path], seed: int, work: Path) -> Path:
    return seeds[asked["seed"]] if "seed" in asked else write_mutant(target, seeds, seed, asked["number"], work)


def write_mutant(target: targets.Target, seeds: list[Path], seed: int, number: int, work: Path) -> Path:
    """A file of that suffix, alone in its folder: the driver finds it there when this process has ended."""
    data, suffix = target.mutant(seeds, seed, number)
    folder = work / "mutant"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    path = folder / f"mutant{suffix}"
    path.write_bytes(data)
    return path


def measured(target: targets.Target, path: Path) -> Outcome:
    """With the peak of memory while it was read."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is there now
    before = status("VmRSS")
    found = outcome_of(target.read, path)
    mib = max(0.0, (status("VmHWM") - before) / 1024)
    if found.passed and mib > target.memory_mib:
        return Outcome("memory", f"after {found.kind}", f"{mib:.0f} MiB, {found.told}", found.seconds, mib)
    return dataclasses.replace(found, mib=mib)


def status(field: str) -> int:
    """Of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
