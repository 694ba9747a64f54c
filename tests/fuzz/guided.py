"""Coverage guides the mutants: inputs that reach new branches of our Python are kept and changed further, by Atheris.

    PYTHONPATH=tests python -m fuzz.guided gguf --minutes 5      `make fuzz-guided TARGET=gguf MINUTES=5`

An input is a byte, which suffix it has, and the file's bytes. Half of all changes are the target's own mutators, half
libFuzzer's on bytes. Findings are saved as the driver saves them; inputs that reached something new lie in
build/fuzz/guided/NAME. At the end it is told how many branches the seeds reach, as many seeded mutants as guided ones
were tried, the guided ones, and all together; and the fewest guided inputs that reach lines which a sample of the
seeded ones does not are named, to be kept in corpus/NAME.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz import target as targets
from fuzz.findings import Finding
from fuzz.outcome import OURS, ROOT, outcome_of
from fuzz.process import own_state

MISSING = "atheris is not installed: pip install atheris (Linux or macOS; wheels for CPython 3.11 to 3.13)"
MOST_SEEDED, MOST_TRACED = 5000, 200  # mutants that are compared with; whose lines are counted, which is slow
Line = tuple[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.guided", description=__doc__)
    parser.add_argument("target", choices=targets.names())
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz" / "guided")
    parser.add_argument("--inner", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(f"error: {MISSING}", file=sys.stderr)
        return 1
    if args.inner:
        guide(args)
        return 0
    work = Path(tempfile.mkdtemp(prefix=f"guided-{args.target}-"))
    try:  # in a process of its own, which libFuzzer ends as it likes
        args.out = args.out.resolve()
        log = inner(args, work)
        n_tried = int((work / "tried").read_text()) if (work / "tried").exists() else 0
        print(f"{args.target}: {n_tried} guided mutants in {args.minutes:g} minutes; {last(log)}", flush=True)
        os.environ.update(own_state(work))
        report(args, work, n_tried)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def inner(args: argparse.Namespace, work: Path, measure: Sequence[Path] | None = None) -> str:
    """What libFuzzer says in a process of its own."""
    command = [sys.executable, "-m", "fuzz.guided", args.target, "--minutes", str(args.minutes), "--seed",
               str(args.seed), "--out", str(args.out), "--inner", str(work)]  # fmt: skip
    if measure is not None:
        command += ["--measure", *map(str, measure)]
    environment = {**os.environ, **own_state(work), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(command, env=environment, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return found.stdout.decode(errors="replace")


def last(log: str) -> str:
    """Findings, and the last that was said of branches."""
    found = [line for line in log.splitlines() if " at " in line and "tests/fuzz/findings" in line]
    covered = re.findall(r"cov: (\d+)", log)
    return f"{len(found)} findings, {covered[-1] if covered else 'no'} branches" + "".join(f"\n  {f}" for f in found)


# --- under libFuzzer --------------------------------------------------------------------------------------------------


def guide(args: argparse.Namespace) -> None:
    """Until the time is over; does not return."""
    import atheris

    work, kept = args.inner, args.out / args.target
    with atheris.instrument_imports(include=["aim_local"], enable_loader_override=False):
        target = targets.load(args.target)
        seeds = target.all_seeds(work / "seeds")
        for path in seeds:
            outcome_of(target.read, path)  # imports what a reader imports late
    begun = work / "begun"
    for folder in (begun, kept):
        folder.mkdir(parents=True, exist_ok=True)
    for n, path in enumerate(seeds):
        (begun / f"{n:03}").write_bytes(packed(target, path))
    corpora = [kept, begun] if args.measure is None else [begun, *args.measure]
    n_tried, end = 0, time.monotonic() + args.minutes * 60

    def one(data: bytes) -> None:
        nonlocal n_tried
        n_tried += 1
        if n_tried % 50 == 0 and args.measure is None:
            (work / "tried").write_text(str(n_tried))
        if time.monotonic() > end and args.measure is None:
            os._exit(0)
        if not data:
            return
        path = unpacked(target, data, work / "input")
        found = outcome_of(target.read, path)
        if not found.passed and args.measure is None:
            finding = Finding(target.name, found, args.seed, None)
            print(f"{found.kind} at {found.place}: {finding.save(targets.FINDINGS, path.read_bytes(), suffix(path))}")

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if len(data) < 2 or rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        try:
            return (data[:1] + target.mutate(data[1:], rng))[:most]
        except Exception:  # of a target whose mutators want what is sound
            return bytes(atheris.Mutate(data, most))

    def suffix(path: Path) -> str:
        return targets.suffix_of(path, target.suffixes)

    longest = max(path.stat().st_size for path in seeds) * 5 // 4 + 1024
    options = [f"-max_len={longest}", f"-seed={args.seed}", "-timeout=20", "-rss_limit_mb=4096"]
    if args.measure is None:
        options += [f"-max_total_time={int(args.minutes * 60) + 30}", f"-artifact_prefix={kept}/stopped-"]
    else:
        options += ["-runs=0"]
    atheris.Setup([sys.argv[0], *options, *map(str, corpora)], one, custom_mutator=change)
    atheris.Fuzz()


def packed(target: targets.Target, path: Path) -> bytes:
    ends = [f".{end.removeprefix('.')}" for end in target.suffixes]
    return bytes([ends.index(targets.suffix_of(path, target.suffixes))]) + path.read_bytes()


def unpacked(target: targets.Target, data: bytes, folder: Path) -> Path:
    """A file alone in its folder."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    end = target.suffixes[data[0] % len(target.suffixes)].removeprefix(".")
    path = folder / f"mutant.{end}"
    path.write_bytes(data[1:])
    return path


# --- what was reached -------------------------------------------------------------------------------------------------


def report(args: argparse.Namespace, work: Path, n_tried: int) -> None:
    target, kept = targets.load(args.target), args.out / args.target
    seeds, folder = target.all_seeds(work / "seeds"), work / "seeded"
    folder.mkdir()
    n_seeded = min(n_tried, MOST_SEEDED)
    for path in mutants(target, seeds, n_seeded, args.seed, work):
        (folder / f"{len(os.listdir(folder))}").write_bytes(packed(target, path))
    reached = [last(inner(args, work, which)) for which in ([], [folder], [kept], [folder, kept])]
    numbers = [line.partition(", ")[2].removesuffix(" branches") for line in reached]
    print("branches: seeds {}, {} seeded mutants {}, guided {}, both {}".format(
        numbers[0], n_seeded, *numbers[1:]), flush=True)  # fmt: skip
    for path in seeds:
        outcome_of(target.read, path)  # imports are no branches of a reader
    base = union(lines_of(target, path) for path in seeds)
    sample = mutants(target, seeds, min(n_seeded, MOST_TRACED), args.seed, work)
    seeded = base | union(lines_of(target, path) for path in sample)
    files = [file for file in sorted(kept.iterdir()) if file.stat().st_size and not file.name.startswith("stopped-")]
    found = {file: lines_of(target, unpacked(target, file.read_bytes(), work / "input")) for file in files}
    guided = base | union(found.values())
    for name, number in sorted(guided - seeded):
        print(f"  only guided: {name}:{number}")
    for file, new in fewest(found, seeded):
        print(f"  {file} ({file.stat().st_size} bytes) reaches {new} lines more")


def mutants(target: targets.Target, seeds: Sequence[Path], n: int, seed: int, work: Path) -> Iterator[Path]:
    folder = work / "mutants"
    folder.mkdir(exist_ok=True)
    for number in range(n):
        data, end = target.mutant(seeds, seed, number)
        path = folder / f"mutant{end}"
        path.write_bytes(data)
        yield path
        path.unlink()


def lines_of(target: targets.Target, path: Path) -> set[Line]:
    """Of our Python, that a read goes through, in all of its threads."""
    found = set[Line]()

    def enter(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        name = name.removeprefix(f"{ROOT}/")
        if not name.startswith(OURS):
            return None

        def step(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
            found.add((name, frame.f_lineno))
            return step

        return step

    threading.settrace(enter)
    sys.settrace(enter)
    try:
        outcome_of(target.read, path)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]  # as its own documentation has it
    return found


def union(sets: Iterable[set[Line]]) -> set[Line]:
    return set().union(*sets)


def fewest(found: dict[Path, set[Line]], known: set[Line]) -> Iterator[tuple[Path, int]]:
    """Inputs that reach what is not known, each the one that adds most."""
    left, known = dict(found), set(known)
    while left:
        best = max(left, key=lambda file: (len(left[file] - known), -file.stat().st_size))
        new = len(left.pop(best) - known)
        if not new:
            return
        known |= found[best]
        yield best, new


if __name__ == "__main__":
    sys.exit(main())
