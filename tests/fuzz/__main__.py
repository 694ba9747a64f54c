"""The command line: which targets, how long, where findings go; the table at the end. Exits with 1 after a finding.

Equal time for each target, one after another. What was tried is kept in build/fuzz/state.json: another run goes on from
there, and its table counts all runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from fuzz import target as targets
from fuzz.driver import Bounds, Run, read_known, replay
from fuzz.outcome import ROOT
from fuzz.process import BrokenTarget
from fuzz.tally import State, table


def main() -> int:
    args = parsed()
    if args.replay:
        return replayed(args.replay, args.target)
    state = State(args.state)
    n_bad = sum(map(known, args.target or targets.names())) if args.known else 0
    if not args.table:
        run(args, state)
    print(table(state.tallies))
    seeds, commits = {t.seed for t in state.tallies}, {c for t in state.tallies for c in t.commits}
    print(f"seeds {sorted(seeds)}, commits {sorted(commits)}")
    return int(any(t.found for t in state.tallies) or n_bad > 0)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "--target", action="append", choices=targets.names(), help="all, where not given; may be repeated"
    )
    parser.add_argument("--minutes", type=float, help="of the clock, for all targets together")
    parser.add_argument("--mutants", type=int, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="children at once")
    parser.add_argument(
        "--out", type=Path, default=targets.FINDINGS, help="folder for findings; tests read the default one"
    )
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "fuzz" / "state.json")
    parser.add_argument("--known", action="store_true", help="first each seed, and each file that was a finding once")
    parser.add_argument("--table", action="store_true", help="only print what was tried so far")
    parser.add_argument(
        "--replay", type=Path, nargs="+", metavar="FILE", help="read these files and say what came of it"
    )
    args = parser.parse_args()
    if not (args.replay or args.table or args.minutes or args.mutants):
        parser.error("say how long: --minutes or --mutants")
    return args


def run(args: argparse.Namespace, state: State) -> None:
    chosen = args.target or targets.names()
    seconds = args.minutes * 60 / len(chosen) if args.minutes else None
    for name in chosen:
        tally = state.tally(name, args.seed, commit())
        try:
            Run(name, tally, state, args.out, told).go(Bounds(seconds, args.mutants, args.jobs))
        except BrokenTarget as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted: the next run goes on from here")
            return


def known(name: str) -> int:
    """How many of its seeds and kept findings do not pass."""
    try:
        outcomes = read_known(name)
    except BrokenTarget as error:
        told(f"error: {error}")
        return 1
    bad = [outcome for outcome in outcomes if not outcome.passed]
    told(f"{name}: {len(outcomes)} seeds and kept findings, {len(bad)} do not pass")
    for outcome in bad:
        told(f"{outcome.kind} at {outcome.place}\n{outcome.told}")
    return len(bad)


def replayed(files: list[Path], chosen: list[str] | None) -> int:
    n_found = 0
    for path in files:
        outcome = replay(chosen[0] if chosen else path.resolve().parent.name, path)
        n_found += not outcome.passed
        amount = f"{outcome.seconds:.1f} s, {outcome.mib:.0f} MiB"
        told(f"{path}: {outcome.kind} {outcome.place} ({amount})\n{outcome.told}".strip())
    return int(bool(n_found))


def told(line: str) -> None:
    print(line, flush=True)


def commit() -> str:
    """Of the sources; "+" where they were changed since."""
    command = ["git", "describe", "--always", "--dirty=+"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
