"""Ctrl-C at many moments of a command's life: how each run ended, as a table.

    python benchmarks/interrupts.py [--moments 120] [--pause 0.01]

Every run has to end with exit code 130, or 0 where it was done before, and without a traceback. Before its first line
of ours runs, Python itself is told of the signal: those runs are counted apart ("python").
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MARKS = (b"Traceback", b"Exception ignored", b"Fatal Python")


def commands(clip: Path, folder: Path) -> dict[str, list[str]]:
    cli = [sys.executable, "-m", "aim_local.cli"]
    return {
        "--version": [*cli, "--version"],
        "models": [*cli, "models"],
        "chat": [*cli, "chat", str(clip), "-p", "What happens?", "--max-tokens", "8"],
        "quantize": [*cli, "quantize", "demo", str(folder / "out"), "--type", "q8_0"],
        "demo": [sys.executable, "-m", "aim_local.demo", "--no-browser", "--out", str(folder / "page")],
    }


def how_it_ended(command: list[str], delay: float, twice: bool, folder: Path) -> tuple[str, bytes]:
    """One run with a signal after `delay` seconds, and a second one right behind it."""
    with open(os.devnull, "rb") as nothing:
        run = subprocess.Popen(command, cwd=folder, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(delay)
    run.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.002)
        run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120)
    before_us = run.returncode == -signal.SIGINT or b"site" in said or b"frozen importlib" in said or b"runpy" in said
    if before_us and b"/cli/" not in said:
        return "python", said
    if any(mark in said for mark in MARKS):
        return "TRACEBACK", said
    return str(run.returncode), said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=120, help="runs of each command")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two moments")
    parser.add_argument("--twice", action="store_true", help="a second signal 2 ms behind the first")
    parser.add_argument("--only", help="one of the commands")
    asked = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        from aim_local.demo import held_out, write_clip

        folder = Path(name)
        clip = folder / "clip.mp4"
        write_clip(next(iter(held_out(1, seed=1))), clip)
        os.environ["AIM_LOCAL_HOME"] = str(folder / "home")
        for title, command in commands(clip, folder).items():
            if asked.only not in (None, title):
                continue
            ends = Counter[str]()
            for i in range(asked.moments):
                end, said = how_it_ended(command, i * asked.pause, asked.twice, folder)
                ends[end] += 1
                if end not in ("0", "130", "python"):
                    bad += 1
                    print(f"{title} after {i * asked.pause:.3f} s: {end}\n{said.decode(errors='replace')[-600:]}")
            print(f"{title:<12}" + ", ".join(f"{end}: {n}" for end, n in sorted(ends.items())), flush=True)
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
