"""A child process that speaks JSON lines: what it gets, what it says, and what is said of its death."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aim_local.child import Child, describe_death, reason_of
from aim_local.errors import MediaError, NativeError

ECHO = """
from aim_local.errors import MediaError
from aim_local.child import Parent

def answer(message):
    print("a library prints this")
    if message.get("raise"):
        raise MediaError("no such clip")
    return {"got": message}

Parent().serve(answer)
"""
BUSY = """
import os, time
from aim_local.child import Parent

parent = Parent()
parent.end_with()
parent.say(pid=os.getpid())
time.sleep(600)
"""


def test_question_and_answer() -> None:
    with Child("the child", ["-c", ECHO]) as child:
        assert child.ask(text="grüße\n", n=[1, 2.5, None]) == {"got": {"text": "grüße\n", "n": [1, 2.5, None]}}
        with pytest.raises(NativeError, match=r"^the child: no such clip$"):
            child.ask(**{"raise": True})
        assert child.ask(again=True) == {"got": {"again": True}}  # an error is no end


def test_messages_until_the_end() -> None:
    code = "print('{\"a\": 1}'); print('no message'); print('[2]'); print('{\"b\": 2}')"
    with Child("the child", ["-c", code]) as child:
        assert [child.receive(), child.receive(), child.receive()] == [{"a": 1}, {"b": 2}, None]
        assert child.wait() == 0


def test_a_child_that_dies_is_told(tmp_path: Path) -> None:
    code = "import sys; sys.stdin.readline(); print('first\\nout of patience\\n', file=sys.stderr); sys.exit(3)"
    for log in (None, tmp_path / "log"):
        with Child("the child", ["-c", code], log=log) as child, pytest.raises(NativeError) as error:
            child.ask(what="anything")
        assert str(error.value) == "the child: its process ended with exit code 3: out of patience"
    assert (tmp_path / "log").read_text() == "first\nout of patience\n\n"


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (3, "", "its process ended with exit code 3"),
        (1, "a\nb \n\n", "its process ended with exit code 1: b"),
        (-9, "", "killed by SIGKILL, as the system does when memory runs out"),
        (-11, "x" * 1000, "killed by SIGSEGV: " + "x" * 300),
        (-250, "", "killed by signal 250"),
    ],
)
def test_words_of_a_death(code: int, words: str, told: str) -> None:
    assert describe_death(code, words) == told


def test_reasons() -> None:
    assert reason_of(MediaError("two\n lines")) == "two\\n lines"
    assert reason_of(SystemError("f returned NULL without setting an exception")).startswith("not enough memory: ")
    assert reason_of(OSError(errno.ENOMEM, "Cannot allocate memory")).startswith("not enough memory: ")
    assert reason_of(MemoryError()) == "not enough memory"
    assert reason_of(KeyError("x")) == "KeyError: 'x'"


def test_messages_that_come_while_a_child_is_at_work() -> None:
    code = """
from aim_local.child import Parent
parent = Parent()
for message in parent.inbox():
    parent.say(got=message["n"])
"""
    with Child("the child", ["-c", code]) as child:
        for n in range(3):
            child.send(n=n)
        assert [child.receive() for _ in range(3)] == [{"got": n} for n in range(3)]
        child.kill()
        assert child.receive() is None


IN_A_DAEMON = """
import os, sys
for fd in map(int, sys.argv[2]): os.close(fd)
from aim_local.child import Child
with Child("a child", ["-c", "from aim_local.child import Parent; Parent().serve(lambda message: message)"]) as child:
    said = child.ask(x=1) if child._lifeline._here > 2 else "a pipe in the place of a stream"
    open(sys.argv[1], "w").write(str(said))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="closed streams of POSIX")
@pytest.mark.parametrize("closed", ["0", "1", "01", "012", "12"])
def test_of_a_process_without_streams(tmp_path: Path, closed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_A_DAEMON, str(tmp_path / "said"), closed],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "said").read_text() == "{'x': 1}", done.stderr


def test_close_ends_one_at_work() -> None:
    child = Child("the child", ["-c", "import time; time.sleep(600)"])
    child.close()
    assert child.wait() == -9


def test_it_ends_with_its_parent() -> None:
    """The child computes and hears nothing; its parent is killed."""
    code = f"""
import os
from aim_local.child import Child

child = Child("the child", ["-c", {BUSY!r}])
print(child.receive()["pid"], flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    status = Path(f"/proc/{done.stdout.strip()}")
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    deadline = time.monotonic() + 10
    while status.exists() and "(zombie)" not in (status / "status").read_text():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_no_native_library_is_loaded() -> None:
    code = "import sys, aim_local.child; print([m for m in sys.modules if 'llama' in m or 'native' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
