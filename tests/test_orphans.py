"""A child ends with its parent, however that ends, whatever the child is at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aim_local.child import Child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lifelines and /proc")

SOON_S = 30.0  # 2 s are promised; a test waits longer on a busy machine

BUSY = {
    "in code that holds the GIL": "import re; print('{\"at\": \"work\"}', flush=True); re.match('(a+)+b', 'a' * 40)",
    "deaf": 'import time; print(\'{"at": "work"}\', flush=True); time.sleep(600)',
    "deaf to signals": (
        "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; "
        'print(\'{"at": "work"}\', flush=True); time.sleep(600)'
    ),
    "with a stdin that it closed": (
        'import os, time; os.close(0); print(\'{"at": "work"}\', flush=True); time.sleep(600)'
    ),
}
PARENT = """
import sys, time
from aim_local.child import Child
child = Child("the child", ["-c", sys.argv[1]])
if sys.argv[2] == "at once":
    print(child._process.pid, flush=True)
    time.sleep(600)
child.receive()
print(child._process.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ends(pid: int) -> bool:
    end = time.monotonic() + SOON_S
    while is_alive(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.02)
    return True


def parent_of(code: str, when: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, code, when], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize("how", BUSY)
def test_a_busy_child(how: str) -> None:
    parent, child = parent_of(BUSY[how], "at work")
    assert is_alive(child)
    parent.kill()
    parent.wait()
    assert ends(child)


def test_a_parent_that_is_gone_before_the_child_begins() -> None:
    parent, child = parent_of(BUSY["deaf"], "at once")
    parent.kill()
    parent.wait()
    assert ends(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_other_ends_of_the_parent(number: int) -> None:
    parent, child = parent_of(BUSY["deaf"], "at work")
    parent.send_signal(number)
    parent.wait()
    assert ends(child)


def test_a_thread_that_ends_does_not_take_its_children_along() -> None:
    """As PR_SET_PDEATHSIG would have it."""
    made: list[Child] = []
    code = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    thread = threading.Thread(target=lambda: made.append(Child("the child", ["-c", code])))
    thread.start()
    thread.join()
    with made[0] as child:
        assert child.ask(still="there") == {"still": "there"}
        assert child.ask(and_still="there") == {"and_still": "there"}
