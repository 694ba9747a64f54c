"""Few files may be open: one line that names the limit, wherever it is hit, and what raises it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cli_case
import pytest
from cli_case import Play, one_line, run, run_process
from fake_llm import Scripted

from aim_local.cli._app import describe
from aim_local.errors import AimError, MediaError, ModelError, is_out_of_files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_NOFILE")
play = cli_case.play
CLIP = str(Path(__file__).parent.parent / "aim_local" / "data" / "clips" / "order.mp4")
FEW = """
import resource, sys
n = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
from aim_local.cli import main
main()
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "chat": ("chat", CLIP, "-p", "What?"),
    "serve": ("serve", "--port", "0"),
    "plan": ("plan", CLIP),
    "models": ("models",),
}


@pytest.mark.parametrize(("command", "n"), [("chat", 5), ("serve", 6), ("serve", 8), ("plan", 8), ("models", 16)])
def test_a_limit_that_is_too_low_is_one_line(command: str, n: int) -> None:
    done = run_process(str(n), *COMMANDS[command], code=FEW, stdin=-3)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert f"{n} files" in line
    assert "ulimit -n 256" in line


def caused(e: AimError, cause: BaseException) -> AimError:
    e.__cause__ = cause
    return e


TOO_MANY = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.gguf")


@pytest.mark.parametrize(
    "e",
    [
        TOO_MANY,
        OSError(errno.ENFILE, os.strerror(errno.ENFILE)),
        ImportError(f"libx.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"),
        caused(MediaError("clip.mp4: cannot be read; check its name and permissions"), TOO_MANY),
        ModelError(f"llama.cpp: failed to open model.gguf: {os.strerror(errno.EMFILE)}"),
    ],
    ids=["open", "of the system", "a library", "a clip", "native"],
)
def test_where_none_is_left_later(e: BaseException, play: Play) -> None:
    assert is_out_of_files(e)
    line, code = describe(e)
    assert code == 1
    assert "files are open" in line
    assert "permissions" not in line
    play(Scripted(error=e))
    assert "ulimit -n 256" in one_line(run("chat", "-p", "x"), 1)


@pytest.mark.parametrize(
    "make", [lambda: OSError(errno.ENOENT, "No such file"), lambda: ModelError("m.gguf: is damaged"), MemoryError]
)
def test_what_is_something_else(make: Callable[[], BaseException]) -> None:
    assert not is_out_of_files(make())


def test_while_the_command_line_is_imported(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from aim_local import cli

    def fail() -> int:
        raise ImportError(f"_x.so: {os.strerror(errno.EMFILE)}")

    monkeypatch.setattr("aim_local.cli._app.execute", fail)
    assert cli._execute() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "ulimit -n 256" in line
