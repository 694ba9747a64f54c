"""Kills commands that write, with SIGTERM, SIGINT and SIGKILL in turn, at drawn moments; prints what that did.

After each kill: no process of the command is there after 2 seconds; what readers take of its outputs is whole; after
SIGTERM and SIGINT nothing half-written is left. Then the same command runs again: it has to work, to have the result of
an undisturbed run, and to leave nothing else behind. Half of the moments are drawn over the whole run, the others
follow the first sight of something half-written. Exit code 1 where anything was found.

Early is a SIGINT that Python itself heard, before our first line ran; late is one behind the command's end.

With --state it goes on behind the kills of earlier runs, up to --kills in all, and the table counts them, too.

  python benchmarks/kills.py [--kills 1000] [--seed 0] [--only compare] [--state FILE]
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fault_cases import (
    Case,
    Hub,
    Started,
    Truth,
    all_cases,
    changed,
    names,
    one_try,
    read_tally,
    remaining,
    undisturbed,
    write_tally,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
EXITS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}
ORPHAN_S = 2.0
PARTS = (".aim-part", ".incomplete")  # how what is not whole is called
RESUMED = (".incomplete",)  # is kept for the next run
FAULTS = ("taken as good", "left behind", "next run", "orphans", "ending")


@dataclass
class Row:
    """Of one case: kills by signal, and what was found, with the first words on it."""

    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def note(self, fault: str, what: str) -> None:
        self.faults[fault] += 1
        self.words.append(f"{fault}: {what}")


class Rows(dict[str, Row]):
    """By case. state: where they are kept after each kill, if anywhere."""

    def __init__(self, state: Path | None) -> None:
        self._state = state
        told = read_tally(state).items()
        super().__init__({name: Row(Counter(row["kills"]), Counter(row["faults"])) for name, row in told})

    @property
    def n_kills(self) -> int:
        return sum(row.kills.total() for row in self.values())

    def save(self) -> None:
        write_tally(self._state, {name: {"kills": row.kills, "faults": row.faults} for name, row in self.items()})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a case")
    parser.add_argument("--state", type=Path, help="file with what earlier runs did")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored, by us and the commands, where a shell has
        signal.signal(number, signal.default_int_handler)  # started us in the background
    rows = Rows(args.state)
    with tempfile.TemporaryDirectory(prefix="aim-kills-") as scratch, all_cases(Path(scratch)) as (cases, hub):
        cases = [case for case in cases if args.only in ("", case.name)]
        truths = {case.name: undisturbed(case, Path(scratch), hub) for case in cases}
        try:
            for i in range(rows.n_kills, args.kills):
                case, rng = cases[i % len(cases)], random.Random(f"{args.seed} {i}")
                row = rows.setdefault(case.name, Row())
                kill_one(case, truths[case.name], SIGNALS[i // len(cases) % 3], Path(scratch), hub, rng, row)
                for words in row.words:
                    print(f"{case.name}, kill {i}: {words}", flush=True)
                row.words.clear()
                rows.save()
                if (i + 1) % 100 == 0:
                    print(f"{i + 1} kills", flush=True)
        finally:  # stopped: what was done is told
            show(rows)
    return int(any(row.faults for row in rows.values()))


def kill_one(
    case: Case, truth: Truth, number: signal.Signals, scratch: Path, hub: Hub, rng: random.Random, row: Row
) -> None:
    place, mark = one_try(scratch, case), uuid.uuid4().hex
    started = Started(case, place, hub, mark)
    wait_for_moment(started, place, truth.seconds, rng)
    is_late = started.process.poll() is not None
    if not is_late:
        started.process.send_signal(number)
    code = started.wait()
    is_early = number == signal.SIGINT and "<frozen site>" in started.said and "aim_local" not in started.said
    row.kills["late" if is_late else "early" if is_early else number.name] += 1
    if not is_early:  # Python's own start tells of its modules
        check_ending(code, started.said, number, row)
    check_orphans(mark, row)
    check_outputs(case, truth, place, row)
    if number != signal.SIGKILL:
        check_left(place, row, "after the signal", RESUMED)
    again = Started(case, place, hub, mark, 1)
    if again.wait() != 0:
        row.note("next run", f"exit code {again.process.returncode}: {again.said[-300:]}")
    else:
        found = case.read(place)
        if found != truth.found:
            row.note("next run", f"another result: {changed(found, truth.found)}")
        extra = names(place) - truth.names
        if extra:
            row.note("left behind", f"after the next run: {sorted(extra)[:3]}")
    shutil.rmtree(place)


def wait_for_moment(started: Started, place: Path, seconds: float, rng: random.Random) -> None:
    """Until a drawn moment, or the command's end."""
    begin = time.monotonic()
    end = begin + seconds * rng.random()
    if rng.random() < 0.5:
        while started.process.poll() is None and not parts(place) and time.monotonic() < begin + 5 * seconds:
            time.sleep(0.001)
        end = time.monotonic() + rng.choice((0.0, 0.002, 0.02, 0.2)) * rng.random()
    while started.process.poll() is None and time.monotonic() < end:
        time.sleep(0.0005)


def parts(place: Path, kept: tuple[str, ...] = ()) -> list[str]:
    endings = tuple(ending for ending in PARTS if ending not in kept)
    return [name for name in names(place) if name.endswith(endings)]


def check_ending(code: int, said: str, number: signal.Signals, row: Row) -> None:
    if code not in (0, EXITS[number], -number) or "Traceback" in said or "internal error" in said:
        row.note("ending", f"exit code {code} after {number.name}: {said[-300:]}")


def check_orphans(mark: str, row: Row) -> None:
    end = time.monotonic() + ORPHAN_S
    while left := remaining(mark):
        if time.monotonic() > end:
            row.note("orphans", f"{len(left)} processes")
            return
        time.sleep(0.02)


def check_outputs(case: Case, truth: Truth, place: Path, row: Row) -> None:
    try:
        found = case.read(place)
    except Exception as e:  # whatever a reader says of it, it was taken as an output
        row.note("taken as good", f"{type(e).__name__}: {e}")
        return
    wrong = {key: value for key, value in found.items() if truth.found.get(key) != value}
    if wrong:
        row.note("taken as good", str(wrong)[:300])


def check_left(place: Path, row: Row, when: str, kept: tuple[str, ...]) -> None:
    left = parts(place, kept)
    if left:
        row.note("left behind", f"{when}: {left[:3]}")


def show(rows: dict[str, Row]) -> None:
    kinds = [*(number.name for number in SIGNALS), "early", "late"]
    heads = ["case", *kinds, *FAULTS]
    table = [[name, *(row.kills[k] for k in kinds), *(row.faults[f] for f in FAULTS)] for name, row in rows.items()]
    table.append(["all", *(sum(line[i] for line in table) for i in range(1, len(heads)))])
    print(f"| {' | '.join(heads)} |\n|{'|'.join('---' for _ in heads)}|")
    for line in table:
        print(f"| {' | '.join(map(str, line))} |")


if __name__ == "__main__":
    sys.exit(main())
