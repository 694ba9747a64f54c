"""Ctrl-C at any moment of a program's life: exit code 130, no traceback. benchmarks/interrupts.py tries hundreds."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from thorough import few

CLI = [sys.executable, "-P", "-m", "aim_local.cli"]
STARTING = ("Error processing line", "site", "Could not import runpy")  # Python's own words, before it begins with ours


def started(code: str, *args: str) -> subprocess.Popen[str]:
    """A Python program whose words "now" on stdout say that a signal may come."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(code), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(code: str, times: int = 1) -> tuple[int, str]:
    """(exit code, stderr) of a program that is interrupted when it says "now"."""
    with started(code) as run:
        assert run.stdout is not None
        for _ in range(times):
            line = run.stdout.readline()
            assert line == "now\n", run.communicate(timeout=60)
            time.sleep(0.02)  # a signal that comes just before a sleep is heard behind it
            run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    return run.returncode, said


def clean(found: tuple[int, str]) -> None:
    code, said = found
    assert code == 130, said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert said.strip().splitlines()[-1] == "interrupted"


# what runs instead of a module that the command line imports: it says "now", and takes its time as torch does
IMPORT = """
    import sys, time

    class Slow:
        def find_spec(self, name, path=None, target=None):
            if name == {name!r}:
                print("now", flush=True)
                time.sleep(30)

    sys.meta_path.insert(0, Slow())
    sys.argv[1:] = {args!r}
    from aim_local.cli import main
    main()
"""
IMPORTED = [
    ("aim_local.cli._app", ["--version"]),
    ("typer", ["models"]),
    ("aim_local.cli.chat", ["models"]),
    ("aim_local.store.gguf_header", ["models"]),
    ("numpy", ["plan"]),
    ("aim_local.native.library", ["chat", "-p", "x"]),
    ("aim_local.engine.prefill", ["chat", "-p", "x"]),
]


@pytest.mark.parametrize("imported", few(IMPORTED, IMPORTED[::3]), ids=[name for name, _ in IMPORTED])
def test_while_something_is_imported(imported: tuple[str, list[str]]) -> None:
    name, args = imported
    clean(interrupted(IMPORT.format(name=name, args=args)))


def test_as_a_module() -> None:
    done = subprocess.run([*CLI, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout[:9]) == (0, "aim-local")


def test_while_the_demo_imports() -> None:
    demo = "import runpy; runpy.run_module('aim_local.demo.__main__', run_name='__main__')"
    code = IMPORT.replace("from aim_local.cli import main\n    main()", demo)
    found = interrupted(code.format(name="aim_local.demo.show", args=["--no-browser"]))
    assert found == (130, "stopped\n")


def program(body: str) -> str:
    """A program under `interrupts.run`."""
    head = "from aim_local import interrupts\nimport atexit, sys, threading, time\n"
    return f"{head}def now():\n    print('now', flush=True)\n{textwrap.dedent(body)}"


AT_THE_END = {
    "at exit": """
        atexit.register(lambda: (now(), time.sleep(30)))
        interrupts.run(lambda: 0)
    """,
    "a thread is waited for": """
        threading.Thread(target=time.sleep, args=(3,)).start()
        threading._register_atexit(now)
        interrupts.run(lambda: 0)
    """,
}


@pytest.mark.parametrize("body", AT_THE_END.values(), ids=AT_THE_END)
def test_while_python_shuts_down(body: str) -> None:
    clean(interrupted(program(body)))


WHILE_IT_WORKS = {
    "a finalizer": """
        class Slow:
            def __del__(self):
                now(), time.sleep(2)
        def work():
            interrupts.listen()
            Slow()
            time.sleep(30)
    """,
    "a callback of native code": """
        import ctypes
        kind = ctypes.CFUNCTYPE(None)
        def call():
            now(), time.sleep(2)
        def work():
            interrupts.listen()
            kind(call)()
            time.sleep(30)
    """,
    "the garbage collector": """
        import gc
        def work():
            interrupts.listen()
            gc.callbacks.append(lambda phase, info: (gc.callbacks.clear(), now(), time.sleep(2)))
            gc.collect()
            time.sleep(30)
    """,
}


@pytest.mark.parametrize("body", WHILE_IT_WORKS.values(), ids=WHILE_IT_WORKS)
def test_what_python_cannot_raise_comes_again(body: str) -> None:
    """An exception that is raised in there is printed and lost."""
    code, said = interrupted(program(body) + "\ninterrupts.run(work)\n")
    assert (code, "Traceback" in said, "Exception ignored" in said) == (130, False, False)


def test_a_second_one_while_the_first_is_told() -> None:
    body = """
        from aim_local.cli import _log, main
        def say(line):
            now(), time.sleep(30)
        def work(*args):
            now(), time.sleep(30)
        _log.say = say
        from aim_local import store
        store.list_models = work
        sys.argv[1:] = ["models"]
        main()
    """
    code, said = interrupted(program(body), times=2)
    assert (code, "Traceback" in said) == (130, False)


def test_a_program_of_others_keeps_its_handler() -> None:
    """Importing the library, or the command line, changes nothing."""
    code = """
        import signal
        import aim_local.cli, aim_local.interrupts, aim_local.llm
        from aim_local.cli import app
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """
    with started(code) as run:
        assert run.communicate(timeout=60)[0] == "True\n"


@pytest.mark.parametrize("delay", few([0.6, 0.3, 0.9], 1))
def test_an_answer_at_any_moment(mp4: Path, delay: float) -> None:
    """While it loads, reads the clip and answers: where it is then is the machine's affair."""
    command: list[Any] = [*CLI, "chat", mp4, "-p", "What happens?"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True) as run:
        try:
            run.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            time.sleep(0.02)  # a signal that comes just before a sleep is heard behind it
            run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert "aim_local/cli" not in said
    started = run.returncode != -signal.SIGINT  # else the machine was so busy that Python itself had not begun
    assert not started or run.returncode in (0, 130) or any(words in said for words in STARTING)
