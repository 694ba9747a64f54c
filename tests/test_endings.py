"""SIGTERM and SIGHUP: work ends in order, as after a Ctrl-C, with an exit code that says what ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fake_llm import FakeLLM
from run_case import CLIPS, environment

from aim_local import interrupts
from aim_local.cli import _repl

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

MAIN = "from aim_local.cli import main; main()"
# a quantiser that writes half of its output, says so, and goes on for a minute
HALF = f"""
import importlib, time
quantize = importlib.import_module("aim_local.convert.quantize")
def half(source, partial, *rest):
    partial.write_bytes(b"half")
    print("half", flush=True)
    for _ in range(600):  # a signal that comes just before a sleep is heard behind it
        time.sleep(0.1)
quantize.run_worker = half
{MAIN}
"""


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, list[str]]:
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


def started(code: str, *arguments: str | Path, home: Path, ignored: int = 0) -> subprocess.Popen[str]:
    def before() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, arguments)], env=environment(home), preexec_fn=before,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(signal.SIGHUP, 129, "the terminal was closed", marks=pytest.mark.thorough),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.thorough),
    ],
)
def test_half_an_output_goes(tmp_path: Path, number: int, code: int, said: str) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "out" / "q.gguf"
    out.parent.mkdir()
    model = CLIPS.parent / "model" / "model.gguf"
    process = started(HALF, "quantize", model, out, "--type", "q4_0", "--quiet", home=tmp_path / "home")
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    assert list(out.parent.iterdir()) != []
    assert ended(process, number) == (code, [said])
    assert list(out.parent.iterdir()) == []


def test_sigterm_where_ctrl_c_is_ignored(tmp_path: Path) -> None:
    """As in a script's background job, which a shell starts with SIGINT ignored."""
    pytest.importorskip("torch")
    model = CLIPS.parent / "model" / "model.gguf"
    out = tmp_path / "q.gguf"
    process = started(
        HALF, "quantize", model, out, "--type", "q4_0", "--quiet", home=tmp_path / "home", ignored=signal.SIGINT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    assert ended(process, signal.SIGTERM) == (143, ["terminated"])
    assert list(tmp_path.iterdir()) == []


class Interrupted:
    """A reader at which Ctrl-C is pressed, and then Ctrl-D."""

    def __init__(self) -> None:
        self.n = 0

    def read(self) -> str:
        self.n += 1
        raise KeyboardInterrupt if self.n == 1 else EOFError


def test_sigterm_ends_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C at the prompt does not."""
    llm = FakeLLM()
    reader = Interrupted()
    _repl.run(llm.chat(), "fake", [], stats=False, quiet=True, reader=reader)
    assert reader.n == 2
    monkeypatch.setattr(interrupts, "_others", [("terminated", 143)])
    with pytest.raises(KeyboardInterrupt):
        _repl.run(llm.chat(), "fake", [], stats=False, quiet=True, reader=Interrupted())


def test_what_the_caller_ignores_stays_ignored() -> None:
    """nohup."""
    code = (
        "import signal\nfrom aim_local.cli import _signals\n_signals.listen()\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        capture_output=True, text=True, check=True, env={**os.environ},
    )  # fmt: skip
    assert done.stdout == "True False\n"


LATE = {
    "behind the work": """
        stop = interrupts._stop_listening
        interrupts._stop_listening = lambda: (setattr(interrupts, "_stop_listening", stop), os.kill(os.getpid(), 15))
    """,
    "while python ends": """
        import atexit
        atexit.register(lambda: os.kill(os.getpid(), 15))
    """,
}


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGTERM, (143, "terminated")), (signal.SIGINT, (130, "interrupted"))]
)
@pytest.mark.parametrize("place", ["make_context", "invoke"])
def test_before_the_command_begins_and_behind_it(place: str, number: int, ending: tuple[int, str]) -> None:
    """Where typer itself is at work, which would make 130 of both and say nothing."""
    code = f"""
        import os
        from aim_local.cli import _app, main
        group = _app.AimGroup
        before = group.{place}
        def signalled(self, *args, **extra):
            if {place == "invoke"}:
                before(self, *args, **extra)
            os.kill(os.getpid(), {int(number)})
        group.{place} = signalled
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "models"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == ending


@pytest.mark.parametrize("body", LATE.values(), ids=LATE)
def test_sigterm_at_the_end_is_no_ctrl_c(body: str) -> None:
    work = "def work():\n    interrupts.listen()\n    _signals.listen()\n    return 0\n"
    head = f"import os\nfrom aim_local import interrupts\nfrom aim_local.cli import _signals\n{work}"
    code = f"{head}{textwrap.dedent(body)}\ninterrupts.run(work)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert done.stderr in ("", "terminated\n")
