"""How a command fails: exit codes, one line on stderr, Ctrl-C, streams that are closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cli_case
import pytest
from cli_case import MAIN, Play, one_line, run, run_process
from fake_llm import Scripted
from gguf_files import write_folder

from aim_local import store
from aim_local.errors import ContextError, ModelError
from aim_local.results import Stats

play = cli_case.play


def bad_files(folder: Path) -> dict[str, Path]:
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    (folder / "text.png").write_text("not a picture")
    files = {"missing": folder / "none.mp4", "empty": folder / "empty.mp4", "folder": folder / "folder.mp4"}
    return {**files, "text.png": folder / "text.png"}


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["--video", "missing", "-p", "x"], 1, "no such file"),
        (["--video", "folder", "-p", "x"], 1, "is a folder"),
        (["--video", "empty", "-p", "x"], 1, "is empty"),
        (["--image", "text.png", "-p", "x"], 1, "text.png"),
        (["-p", ""], 2, "the question from -p is empty"),
        (["-p", "x", "--frames", "0"], 2, "--frames is 0"),
        (["-p", "x", "--frames", "-3"], 2, "--frames is -3"),
        (["-p", "x", "--frames", "two"], 2, "'two'"),
        (["-p", "x", "--fps", "0"], 2, "--fps is 0"),
        (["-p", "x", "--fps", "nan"], 2, "--fps is nan"),
        (["-p", "x", "--start", "5", "--end", "3"], 2, "--start 5 s is after --end 3 s"),
        (["-p", "x", "--start", "-1"], 2, "'-1' is no time"),
        (["-p", "x", "--start", "1:75"], 2, "'1:75' is no time"),
        (["-p", "x", "--end", "soon"], 2, "'soon' is no time"),
        (["-p", "x", "--end", "inf"], 2, "'inf' is no time"),
        (["-p", "x", "--ctx", "0"], 2, "--ctx is 0"),
        (["-p", "x", "--threads", "-1"], 2, "--threads is -1"),
        (["-p", "x", "--threads", "100000"], 2, "--threads is 100000; give at most 512"),
        (["-p", "x", "--gpu-layers", "-2"], 2, "--gpu-layers is -2"),
        (["-p", "x", "--type-k", "q9"], 2, "--type-k is 'q9'"),
        (["-p", "x", "--type-v", "q8_0", "--flash-attn", "off"], 2, "needs flash attention"),
        (["-p", "x", "--flash-attn", "maybe"], 2, "maybe"),
        (["-p", "x", "--temp", "-1"], 2, "--temp is -1"),
        (["-p", "x", "--seed", "-1"], 2, "--seed is -1"),
        (["-p", "x", "--max-tokens", "0"], 2, "--max-tokens is 0"),
        (["-p", "x", "--colour"], 2, "--colour"),
        (["a", "b", "-p", "x"], 2, "b"),
        (["-p"], 2, "-p"),
    ],
)
def test_bad_input(play: Play, tmp_path: Path, args: list[str], code: int, told: str) -> None:
    llm = play("never said")
    files = bad_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run("chat", *[files.get(arg, arg) for arg in args])
    assert told in one_line(result, code)
    assert llm.loads == []  # told before a model is loaded
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_command() -> None:
    assert "No such command 'chit'" in one_line(run("chit"), 2)


@pytest.mark.parametrize("words", [["serve", "clip.mp4"], ["bench", "clip.mp4"]])
def test_a_clip_in_the_place_of_a_model(words: list[str]) -> None:
    assert "clip.mp4 is named as clips are, and a model is wanted here" in one_line(run(*words), 2)


def test_unknown_model_names_the_nearest() -> None:
    write_folder(store.models_folder() / "onevision")
    result = run_process("chat", "onevison", "-p", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no model called 'onevison'; did you mean onevision?")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ModelError("two\nlines"), ContextError("needs 900 tokens, the context holds 512")])
def test_errors_of_the_library(play: Play, error: Exception) -> None:
    play(Scripted(error=error))
    assert one_line(run("chat", "-p", "x"), 1) == "error: " + str(error).replace("\n", " ")


def test_errors_keep_stdout_empty_under_json(play: Play) -> None:
    play(Scripted(error=ModelError("no")))
    assert one_line(run("chat", "-p", "x", "--json"), 1) == "error: no"


def test_unexpected_errors(play: Play) -> None:
    play(Scripted(error=ZeroDivisionError("boom")))
    line = one_line(run("chat", "-p", "x"), 1)
    assert line == "error: internal error: ZeroDivisionError: boom; run again with --debug for details"


def test_debug_shows_the_traceback(play: Play) -> None:
    play(Scripted(error=ZeroDivisionError("boom")))
    result = run("chat", "-p", "x", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("error: internal error: ZeroDivisionError: boom\n")


def test_interrupted_while_reading(play: Play) -> None:
    play(Scripted(error=KeyboardInterrupt()))
    result = run("chat", "-p", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_interrupted_while_answering(play: Play) -> None:
    play(Scripted("a red", stats=Stats(stop_reason="interrupted")))
    result = run("chat", "-p", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "a red\n", "interrupted\n")


def test_half_an_answer_ends_its_line(play: Play) -> None:
    play(Scripted("a red", error=ModelError("llama_decode failed"), late=True))
    result = run("chat", "-p", "x")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "a red\n", "error: llama_decode failed\n")


def test_conversation_has_no_json(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    from aim_local.cli import chat

    play()
    monkeypatch.setattr(chat, "question_from", lambda *_: None)
    assert "a conversation has no JSON form" in one_line(run("chat", "--json"), 2)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes differ")
@pytest.mark.parametrize("args", [["--help"], ["models", "--json"]])
def test_reader_that_goes_away(args: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run_process(*args, capture_output=False, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        done = run_process("models", "--json", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "error: writing the output: No space left on device; check the disk and permissions\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_closed_streams(tmp_path: Path) -> None:
    for closed, code in (("<&-", 2), (">&-", 0), ("2>&-", 0)):
        command = f'"{sys.executable}" -P -c "{MAIN}" {"chat" if code else "models"} {closed}'
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert "internal error" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_an_answer_with_closed_streams(tmp_path: Path, closed: str) -> None:
    """A pipe to another process is none of them, and no file of ours takes a stream's place: llama.cpp writes there."""
    clip = Path(__file__).parent.parent / "aim_local" / "data" / "clips" / "order.mp4"
    asked = f"chat '{clip}' -p What? --max-tokens 2 -q"
    command = f'"{sys.executable}" -P -c "{MAIN}" {asked} {closed}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout.strip()) is (">&-" not in closed.replace("2>&-", ""))


STREAMS = """
import os, sys
for fd in range(int(sys.argv[1])): os.close(fd)
from aim_local.cli import _keep_streams
_keep_streams()
with open(sys.argv[2], "w") as file: os.write(file.fileno(), str(file.fileno()).encode())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="closed streams of POSIX")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_file_is_never_a_stream(tmp_path: Path, n: int) -> None:
    subprocess.run([sys.executable, "-P", "-c", STREAMS, str(n), tmp_path / "fd"], check=True, timeout=60)
    assert int((tmp_path / "fd").read_text()) > 2


ESCAPES = "\x1b]0;title\x07\x1b[31m\x9b.mp4"


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["chat", "--video", ESCAPES, "-p", "x"], 1, r"\x1b]0;title\x07\x1b[31m\x9b.mp4: no such file"),
        (["chat", "-p", "x\udcff"], 2, "the question from -p is not UTF-8 text"),
        (["chat", "~nobody-of-that-name/x", "-p", "x"], 1, "~nobody-of-that-name/x: no such"),
        (["run", "q.jsonl", "~nobody-of-that-name/x", "--out", "o"], 1, "q.jsonl"),
        (["watch", "~nobody-of-that-name/x", "-p", "x"], 1, "cannot be watched"),
        (["chat", "", "-p", "x"], 2, "an empty word is neither a model nor a clip"),
        (["chat", "http://me:secret@host/x.mp4", "-p", "x"], 2, "http://***@host/x.mp4 is a URL"),
        (["a b.mp4"], 2, "'a b.mp4' is no command; to ask about a clip: `aim-local chat 'a b.mp4'`"),
        (["chat", "--help.mp4", "-p", "x"], 2, "write ./--help.mp4 for the file"),
        (["chat", "-x.mp4", "-p", "x"], 2, "write ./-x.mp4 for the file"),
        (["chat", "clip.mp4", "-p", "x"], 1, "clip.mp4: is a folder, although it is named as a clip"),
        (["chat", "--video", "y" * 10000, "-p", "x"], 2, "of 10,000 bytes, longer than a file's name can be"),
        (["chat", "--tokens", "y" * 10000, "-p", "x"], 2, "is unknown; give off"),
        (["y" * 10000], 2, "No such command"),
    ],
)  # fmt: skip
def test_odd_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, told: str) -> None:
    """One line that says what to do, short, without control codes and secrets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").mkdir()
    for name in ("-x.mp4", "--help.mp4"):
        (tmp_path / name).write_text("clip")
    result = run(*args)
    line = one_line(result, code)
    assert told in line
    assert "internal error" not in line
    assert "secret" not in line
    assert len(line) < 1500
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line.strip())


def test_bytes_on_stdin_that_are_not_utf8(tmp_path: Path) -> None:
    code = f"import sys; sys.argv[1:] = ['chat']; {MAIN}"
    found = subprocess.run([sys.executable, "-c", code], input=b"x\xff", capture_output=True, check=False, timeout=60)
    assert (found.returncode, found.stdout) == (2, b"")
    assert b"the question from stdin is not UTF-8 text" in found.stderr
