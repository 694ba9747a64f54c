"""A cell's process as its parent sees it: started, listened to, and why it ended.

What the process does is cell.py's business.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .job import Job


def run_process(job: Job, log: Path, on_item: Callable[[], None], held: tuple[int, ...]) -> str:
    """A cell's process from start to end; returns why it failed in one line, "" if it did not."""
    reason = ""
    with open(log, "wb") as errors, _process(job, errors, held) as child:
        assert child.stdout is not None
        for line in child.stdout:
            event = _event(line)
            if event.get("event") == "item":
                on_item()
            elif event.get("event") == "failed":
                reason = str(event.get("reason"))
        code = child.wait()
    if code == 0 and not reason:
        return ""
    return _with_limit(reason or death(code, log), job.options.memory_limit)


@contextlib.contextmanager
def _process(job: Job, errors: Any, held: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """Started with the job on stdin, which stays open: the child ends when it closes. Killed when the block ends."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.cell"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "GGML_NO_BACKTRACE": "1"},
        pass_fds=held,
        start_new_session=True,  # Ctrl-C is for us alone
    )
    assert child.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(job.to_json().encode() + b"\n")
            child.stdin.flush()
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def death(code: int, log: Path) -> str:
    """One line for a process that ended without a word of its own: the signal or exit code, and its last line."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        how = f"killed by {name}{', as the system does when memory runs out' if name == 'SIGKILL' else ''}"
    else:
        how = f"its process ended with exit code {code}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{how}: {lines[-1][:300]}" if lines else how


# what a limit on address space looks like from Python, from the loader, from ggml and from threads that cannot start
_NO_MEMORY = ("memory", "alloc", "map segment", "thread", "temporarily unavailable", "buffer", "SIGSEGV", "SIGABRT")


def _with_limit(reason: str, limit: int | None) -> str:
    """The reason, with the memory limit where it is the likely cause."""
    if limit is None or not any(word in reason for word in _NO_MEMORY):
        return reason
    return f"out of memory, the limit is {limit / 2**20:.0f} MiB ({reason})"
