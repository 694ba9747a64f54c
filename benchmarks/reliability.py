"""Runs the trials of docs/reliability.md, keeps what each printed, and writes the page's tables from that.

  python benchmarks/reliability.py run fuzz              one trial as RUNS has it (more arguments: another amount)
  python benchmarks/reliability.py record NAME COMMAND   any command, under a name of RUNS
  python benchmarks/reliability.py more NAME COMMAND     a piece of a trial that adds up what it did: seconds are added
  python benchmarks/reliability.py render                the tables of docs/reliability.md from docs/reliability/

A record is the command, its output, its exit code, seconds, commit and machine. Nothing in the page's tables is from
anywhere else; a trial that was not run is said to be so. `make fuzz` keeps its tally among the records, so that hours
of it can be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from aim_local.lab.doctor import processor

ROOT = Path(__file__).resolve().parent.parent
FOLDER, PAGE = ROOT / "docs" / "reliability", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- from docs/reliability/*.json, by benchmarks/reliability.py -->", "<!-- end -->"
RUNS = {
    "fuzz": ("damaged files for every reader", "make fuzz MINUTES=240 STATE=docs/reliability/fuzz.tally"),
    "faults": ("each call of the C library fails once", "make faults"),
    "kills": (
        "commands that write are killed at drawn moments",
        "python benchmarks/kills.py --kills 1000 --state docs/reliability/kills.tally",
    ),
    "side-by-side": (
        "two and four processes on one output",
        "python benchmarks/side_by_side.py --tries 50 --state docs/reliability/side-by-side.tally",
    ),
    "long-use": ("10,000 answers in one process, 200 unclosed chats", "python benchmarks/long_use.py"),
    "sanitize": ("address and undefined-behaviour sanitizers, and leaks", "make sanitize"),
    "sanitize-thread": ("thread sanitizer", "make sanitize-thread"),
    "serve-fuzz": ("schemathesis against the service", "python benchmarks/serve_fuzz.py --examples 300"),
}
LAST_LINES = 40


@dataclass(frozen=True)
class Record:
    """One run of a trial. output: its last lines."""

    name: str
    command: str
    output: str
    code: int
    seconds: float
    commit: str
    machine: str
    date: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "record", "more", "render"))
    parser.add_argument("name", nargs="?", choices=tuple(RUNS))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.action == "render":
        PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), records(FOLDER)), encoding="utf-8")
        return 0
    if args.name is None or (args.action in ("record", "more") and not args.command):
        parser.error("say which trial, and for record and more its command")
    command = [*shlex.split(RUNS[args.name][1]), *args.command] if args.action == "run" else args.command
    record = recorded(args.name, command)
    before = records(FOLDER).get(args.name) if args.action == "more" else None
    if before:
        record = replace(
            record,
            command=f"{before.command}; {record.command}",
            code=before.code or record.code,
            seconds=before.seconds + record.seconds,
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{args.name}.json").write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    return record.code


def recorded(name: str, command: list[str]) -> Record:
    """Runs it; what it prints is shown as it comes."""
    begin, lines = time.monotonic(), list[str]()
    shown = shlex.join(command)
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    seconds = time.monotonic() - begin
    date = datetime.now(UTC).date().isoformat()
    output = "\n".join(lines[-LAST_LINES:])
    return Record(name, shown, output, process.returncode, seconds, commit(), machine(), date)


def records(folder: Path) -> dict[str, Record]:
    """The last of each trial."""
    found = [Record(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    return {record.name: record for record in found}


def rendered(page: str, found: dict[str, Record]) -> str:
    """The page with its tables of these records."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{summary(found)}\n{details(found)}\n{END}{tail}"


def summary(found: dict[str, Record]) -> str:
    rows = ["| trial | command | held | how long | of |", "|---|---|---|---|---|"]
    for name, (what, command) in RUNS.items():
        record = found.get(name)
        if record is None:
            rows.append(f"| {what} | `{command}` | not run for this page | | |")
            continue
        held = "yes" if record.code == 0 else "**no**, see below"
        rows.append(
            f"| {what} | `{record.command}` | {held} | {spent(record.seconds)} | {record.commit}, {record.date} |"
        )
    return "\n".join(rows) + "\n"


def details(found: dict[str, Record]) -> str:
    parts = []
    for name, (what, _) in RUNS.items():
        if name in found:
            record = found[name]
            parts.append(f"### {what[0].upper()}{what[1:]}\n\n{record.machine}; `{record.command}` printed:\n\n"
                         f"```\n{record.output}\n```\n")  # fmt: skip
    return "\n".join(parts)


def spent(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty=+"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine() -> str:
    system, python = f"{platform.system()} {platform.machine()}", f"Python {platform.python_version()}"
    return f"{system}, {os.cpu_count()} cores of {processor()}, {python}"


if __name__ == "__main__":
    sys.exit(main())
