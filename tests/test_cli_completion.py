"""What can stand next: for the Tab of a shell and of the conversation's line editor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_case import MAIN, one_line, run, run_process
from gguf_files import write_folder
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from aim_local import store
from aim_local.cli import _reader, app
from aim_local.cli._completing import paths

HEAVY = ("numpy", "av", "PIL", "rich", "prompt_toolkit", "gguf", "torch", "aim_local.native.library", "aim_local.media")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: clips, a folder, a GGUF, other files; and a model in the store."""
    (tmp_path / "clips").mkdir()
    for name in ("clip.mp4", "my clip.webm", "model.gguf", "notes.txt", ".hidden.mp4", "clips/a.png", "clips/b.txt"):
        (tmp_path / name).touch()
    write_folder(store.models_folder() / "onevision")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the shell -------------------------------------------------------------------------------------------------------


def asking(shell: str, *words: str) -> dict[str, str]:
    """The environment with which a shell asks about the last of the words."""
    line = " ".join(["aim-local", *words])
    env = {"_AIM_LOCAL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    return {**env, "COMP_WORDS": line, "COMP_CWORD": str(len(words)), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("chat", ""), ["demo", "onevision", "clip.mp4", "clips/", "model.gguf", "my clip.webm"]),
        (("chat", "cl"), ["clip.mp4", "clips/"]),
        (("chat", "onevision", "clips/"), ["clips/a.png"]),
        (("chat", "--video", "clips/"), ["clips/a.png"]),
        (("chat", "--mmproj", "m"), ["model.gguf", "my clip.webm"]),
        (("explain", "one"), ["onevision"]),
        (("bench", ""), ["demo", "onevision", "clips/", "model.gguf"]),
        (("chat", "--gpu"), ["--gpu-layers"]),
        (("chat", "none/x"), []),
    ],
    ids=str,
)
def test_what_bash_is_told(
    words: tuple[str, ...],
    told: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in asking("bash", *words).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="0"):
        app([])
    assert capsys.readouterr().out.split("\n")[:-1] == (told or [""])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_told_and_nothing_heavy_is_imported(shell: str, folder: Path) -> None:
    watched = f"import sys, atexit; atexit.register(lambda: print(set({HEAVY}) & set(sys.modules), file=sys.stderr));"
    done = run_process(code=f"{watched} {MAIN}", env={**os.environ, **asking(shell, "chat", "cl")})
    assert "clip.mp4" in done.stdout
    assert "clips/" in done.stdout
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"_AIM_LOCAL_COMPLETE=complete_{shell}" in script
    assert json.loads(run("completion", shell, "--json").stdout) == {"shell": shell, "script": script[:-1]}
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, timeout=60).stderr == ""


def test_an_unknown_shell() -> None:
    assert "'tcsh'" in one_line(run("completion", "tcsh"), 2)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_the_script_in_a_real_bash(folder: Path) -> None:
    program = folder / "bin" / "aim-local"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -P\n{MAIN}\n")
    program.chmod(0o755)
    script = run("completion", "bash").stdout
    ask = (
        'COMP_WORDS=(aim-local chat m); COMP_CWORD=2; _aim_local_completion aim-local; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{ask}"], env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.stdout.splitlines()) == ("", ["model.gguf", "my clip.webm"])


# --- the conversation ------------------------------------------------------------------------------------------------


def lines(text: str) -> list[str]:
    """The lines that Tab can make of a text."""
    found = _reader.make_completer().get_completions(Document(text, len(text)), CompleteEvent())
    return [text[: len(text) + c.start_position] + c.text for c in found]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/s", ["/stats", "/save "]),
        ("/video cl", ["/video clip.mp4", "/video clips/"]),
        ("/video clips/", ["/video clips/a.png"]),
        ("/image my", ["/image my\\ clip.webm"]),
        ("/video my cl", ["/video my\\ clip.webm"]),
        ("/save n", ["/save notes.txt"]),
        ("cl", ["clip.mp4", "clips/"]),
        ("what is in cl", ["what is in clip.mp4", "what is in clips/"]),
        ("what is in my\\ c", ["what is in my\\ clip.webm"]),
        ("what is in 'my", ["what is in 'my clip.webm'"]),
        ('"clips/', ['"clips/a.png"']),
        ("./cl", ["./clip.mp4", "./clips/"]),
        (".h", [".hidden.mp4"]),
        ("what happens", []),
        ("none/", []),
        ("~nobody-at-all/", []),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths are written differently")
def test_the_line_editor(text: str, told: list[str], folder: Path) -> None:
    assert lines(text) == told


def test_paths_from_the_root_and_from_home(folder: Path, user_home: Path) -> None:
    (user_home / "at-home.mp4").touch()
    assert lines("~/at") == ["~/at-home.mp4"]
    assert lines(f"{folder}/cl") == [f"{folder}/clip.mp4", f"{folder}/clips/"]


def test_every_command_is_offered() -> None:
    assert [line.strip() for line in lines("/")] == list(_reader.COMMANDS)


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
def test_names_that_a_shell_would_run_are_not_offered(folder: Path) -> None:
    """zsh's _arguments evaluates what typer's script writes, which is safe but for a backslash before a dollar sign."""
    for name in ("clip\\$(touch ran).mp4", "clip\nrm.mp4", "clip\x1b[31m.mp4", "clip$(touch ran).mp4"):
        (folder / name).touch()
    assert list(paths("cl", lambda name: True)) == ["clip$(touch ran).mp4", "clip.mp4", "clips/"]
