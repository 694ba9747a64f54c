"""What a plan says of memory, against the peak of a run: `python benchmarks/decode_memory.py FILE...`.

Each file is planned and asked about with the bundled model, in a process of its own (Linux).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

_CLI = [sys.executable, "-P", "-c", "from aim_local.cli import main; main()"]


def planned(path: str) -> int:
    """Bytes."""
    told = subprocess.run([*_CLI, "plan", path, "--json"], capture_output=True, text=True, check=True)
    return sum(json.loads(told.stdout)["memory"]["parts"].values())


def peak(path: str) -> int:
    """Bytes of a child that answers one question."""
    child = subprocess.Popen(
        [*_CLI, "chat", path, "-p", "What is this?", "--no-cache", "-q"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{path}: the question was not answered")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    for name in sys.argv[1:]:
        told, came = planned(name), peak(name)
        print(f"{name}: planned {told / 1e9:.2f} GB, measured {came / 1e9:.2f} GB, {told / came:.2f} times")
