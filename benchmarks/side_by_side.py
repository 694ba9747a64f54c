"""Two and four processes at once on one output, one store and one hub cache; prints what became of them.

Each process has to work, or to be refused in one line that says who is at it; one at least works. The result has to be
that of one process alone, and nothing else may be left. Exit code 1 where it is not so.

With --state it goes on behind the tries of earlier runs, up to --tries of each, and the table counts them, too.

  python benchmarks/side_by_side.py [--tries 50] [--only compare] [--state FILE]
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import uuid
from collections import Counter
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

AT_ONCE = (2, 4)
REFUSED = re.compile(r"error: .*(by another process|another (comparison|run) is) .*\(\d+, since [-\d]+ [:\d]+\)")
TRIES = "tries"
COLUMNS = (TRIES, "worked", "refused", "ended otherwise", "another result", "left behind")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--only", default="", help="a case")
    parser.add_argument("--state", type=Path, help="file with what earlier runs did")
    args = parser.parse_args()
    rows = {name: Counter(row) for name, row in read_tally(args.state).items()}
    with tempfile.TemporaryDirectory(prefix="aim-beside-") as scratch, all_cases(Path(scratch)) as (cases, hub):
        for case in [case for case in cases if args.only in ("", case.name)]:
            truth = undisturbed(case, Path(scratch), hub)
            for n in AT_ONCE:
                row = rows.setdefault(f"{case.name}, {n} at once", Counter[str]())
                while row[TRIES] < args.tries:
                    row.update(one(case, truth, n, Path(scratch), hub))
                    write_tally(args.state, rows)
    show(rows)
    return int(any(row[column] for row in rows.values() for column in COLUMNS[3:]))


def one(case: Case, truth: Truth, n: int, scratch: Path, hub: Hub) -> Counter[str]:
    """n processes in one place, begun together."""
    place, mark, row = one_try(scratch, case), uuid.uuid4().hex, Counter({TRIES: 1})
    started = [Started(case, place, hub, mark, i) for i in range(n)]
    for each in started:
        code = each.wait()
        lines = each.said.strip().splitlines() or [""]
        how = "worked" if code == 0 else "refused" if code == 1 and REFUSED.search(lines[-1]) else "ended otherwise"
        row[how] += 1
        if how == "ended otherwise":
            print(f"{case.name}, {n} at once: exit code {code}: {each.said[-400:]}", flush=True)
    problems = {"another result": outcome(case, truth, place), "left behind": extra(truth, place)}
    if not row["worked"] or remaining(mark):
        problems["ended otherwise"] = "none worked, or a process is there still"
    for column, what in problems.items():
        row[column] += bool(what)
        if what:
            print(f"{case.name}, {n} at once: {column}: {what}", flush=True)
    shutil.rmtree(place)
    return row


def outcome(case: Case, truth: Truth, place: Path) -> str:
    try:
        found = case.read(place)
    except Exception as e:  # whatever a reader says of it
        return f"{type(e).__name__}: {e}"
    return changed(found, truth.found) if found != truth.found else ""


def extra(truth: Truth, place: Path) -> str:
    found = names(place) - truth.names
    return str(sorted(found)[:3]) if found else ""


def show(rows: dict[str, Counter[str]]) -> None:
    print(f"| case | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(str(row[column]) for column in COLUMNS)} |")


if __name__ == "__main__":
    sys.exit(main())
