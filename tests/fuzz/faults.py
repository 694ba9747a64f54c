"""Every call of a function fails once, one after another: files, locks, maps and memory during each operation.

    PYTHONPATH=tests python -m fuzz.faults [--most 40] [--operation convert] [--function write]

--most: of the calls of one function, so many are tried, evenly spread. Prints a table, and writes it to
build/faults.json; exits with 1 after a finding. What the operations are: targets/_faults.py; what fails: faults.c.
Needs a C compiler and glibc.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import target as targets
from fuzz.findings import Finding
from fuzz.outcome import ANSWER, REFUSED, ROOT, Outcome
from fuzz.process import Child, own_state

TARGET, SOURCE = "_faults", targets.HERE / "faults.c"
SHORT_WRITE = 0
ERRORS = {
    "open": (errno.EACCES, errno.EMFILE, errno.ENOSPC),
    "write": (errno.ENOSPC, errno.EIO, SHORT_WRITE),
    "fsync": (errno.EIO,),
    "rename": (errno.EACCES, errno.EIO),
    "mmap": (errno.ENOMEM,),
    "malloc": (errno.ENOMEM,),
}
OPERATIONS = ("convert", "quantize", "save", "load", "store", "prune", "answers", "compare")


@dataclass
class Row:
    """Of an operation and a function. calls: that one operation makes; tried: how many of them failed once."""

    operation: str
    function: str
    calls: int
    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def library(folder: Path) -> Path:
    """faults.c, compiled."""
    path = folder / "faults.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", str(path), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return path


def spread(n: int, most: int) -> list[int]:
    """Numbers from 1 to n, at most so many."""
    return sorted({1 + i * (n - 1) // max(1, min(n, most) - 1) for i in range(min(n, most))})


def sweep(child: Child, operation: str, function: str, most: int) -> Iterator[tuple[Row, Outcome, str]]:
    """Each try with its row so far and what was asked."""
    row = Row(operation, function, counted(child, operation, function))
    for n in spread(row.calls, most):
        for number in ERRORS[function]:
            asked = f"{operation} {function} {n} {number}"
            outcome = read(child, asked)
            row.tried += 1
            row.outcomes[outcome.kind] += 1
            yield row, outcome, asked
    if not row.tried:
        yield row, Outcome(ANSWER), ""


def counted(child: Child, operation: str, function: str) -> int:
    outcome = read(child, f"{operation} {function} 0 0")
    assert outcome.kind == ANSWER, outcome
    return int((child.folder / "asked.count").read_text())


def read(child: Child, text: str) -> Outcome:
    path = child.folder / "asked.fault"
    path.write_text(text)
    return child.file(path)


def tried(operations: Sequence[str], functions: Sequence[str], most: int, out: Path) -> list[Row]:
    """All of them; findings are told and kept in `out`."""
    rows: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        given = {**own_state(folder), "LD_PRELOAD": str(library(folder)), "AIM_FAULT_OPERATIONS": ",".join(operations)}
        with Child(TARGET, folder / "child", 0, targets.load(TARGET).memory_mib, given=given) as child:
            for operation in operations:
                for function in functions:
                    for row, outcome, asked in sweep(child, operation, function, most):
                        if row not in rows:
                            rows.append(row)
                        if not outcome.passed:
                            path = Finding(TARGET, outcome, 0, None).save(out, asked.encode(), ".fault")
                            print(f"{asked}: {outcome.kind} at {outcome.place}: {path}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    heads = ("operation", "function", "calls", "tried", "success", "one line", "findings")
    cells = [heads, *(
        (r.operation, r.function, *map(str, (r.calls, r.tried, r.outcomes[ANSWER], r.outcomes[REFUSED], found(r))))
        for r in rows
    )]  # fmt: skip
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def found(row: Row) -> int:
    return row.tried - row.outcomes[ANSWER] - row.outcomes[REFUSED]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=40)
    parser.add_argument("--operation", action="append", choices=OPERATIONS)
    parser.add_argument("--function", action="append", choices=tuple(ERRORS))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz" / "findings")
    parser.add_argument("--result", type=Path, default=ROOT / "build" / "faults.json")
    args = parser.parse_args()
    rows = tried(args.operation or OPERATIONS, args.function or tuple(ERRORS), args.most, args.out)
    print(table(rows))
    args.result.parent.mkdir(parents=True, exist_ok=True)
    plain = [{**vars(row), "outcomes": dict(row.outcomes)} for row in rows]
    args.result.write_text(json.dumps(plain, indent=1) + "\n")
    return int(any(found(row) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
