"""The command line with a fake model: what is asked of the library, what is printed where, and how failures end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLLM, Scripted
from gguf_files import write_folder
from PIL import Image
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from typer.testing import CliRunner

from aim_local import store
from aim_local.cli import _docs, _options, _reader, _repl, _runtime, _turn, app
from aim_local.cli._answer import stats_line
from aim_local.errors import ContextError, ModelError
from aim_local.results import Stats

REPO = Path(__file__).parent.parent
MAIN = "from aim_local.cli import main; main()"
PROMPT = b"\x1b[?2004h"  # the line editor switches bracketed paste on when it is ready
Play = Callable[..., FakeLLM]


def run(*args: str | Path, input: str | None = None) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args], input=input)


def run_process(*args: str | Path, code: str = MAIN, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", code, *map(str, args)]
    return subprocess.run(command, **{"capture_output": True, "text": True, "timeout": 60, **options})


def one_line(result: Any, code: int) -> str:
    """The one line on stderr of a run that failed with `code` and printed nothing."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in lines[0]
    return str(lines[0])


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """play(answers...) puts a fake model behind every command."""

    def put(*answers: Scripted | str) -> FakeLLM:
        llm = FakeLLM(*answers)
        monkeypatch.setattr(_runtime, "load", llm.load)
        return llm

    return put


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A file that exists; the fake model does not look into it."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42 not really")
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(path)
    return path


# --- one question ---------------------------------------------------------------------------------------------------


def test_answer_goes_to_stdout_alone(play: Play, clip: Path, picture: Path) -> None:
    llm = play(Scripted("a red ball", warnings=["clip has 5 frames, 8 were asked: using all 5"]))
    result = run("chat", "--video", clip, "--image", picture, "-p", "What is it?")
    assert (result.exit_code, result.stdout) == (0, "a red ball\n")
    assert result.stderr == "warning: clip has 5 frames, 8 were asked: using all 5\n"
    call = llm.calls[0]
    assert (call["question"], call["media"]) == ("What is it?", [clip, picture])
    assert call["generate"].temperature == 0
    assert call["sampling"] is None
    assert llm.closed


def test_question_from_stdin(play: Play) -> None:
    llm = play("yes")
    result = run("chat", input="Is it\nred?\n")
    assert (result.exit_code, result.stdout) == (0, "yes\n")
    assert llm.calls[0]["question"] == "Is it\nred?"


def test_json_is_one_object(play: Play, clip: Path) -> None:
    play(Scripted("blue", warnings=["w"], stats=Stats(n_frames=8, n_visual_full=128, n_visual=32)))
    result = run("chat", "--video", clip, "-p", "Colour?", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert set(found) == {"text", "question", "model", "media", "warnings", "stats"}
    assert (found["text"], found["media"], found["warnings"]) == ("blue", [str(clip)], ["w"])
    assert found["model"] == {"name": "fake", "architecture": "qwen2"}
    assert (found["stats"]["n_visual_full"], found["stats"]["n_visual"]) == (128, 32)


def test_stats_go_to_stderr(play: Play) -> None:
    play(Scripted("hi", stats=Stats(n_frames=8, n_visual_full=128, n_visual=32, vision_ms=210.4)))
    result = run("chat", "-p", "x", "--stats")
    assert result.stdout == "hi\n"
    assert result.stderr == "stats: 8 frames | visual tokens 128 -> 32 | ms: vision 210 | 0 tokens\n"


def test_quiet(play: Play) -> None:
    play(Scripted("hi", warnings=["w"], stats=Stats(stop_reason="length")))
    result = run("chat", "-p", "x", "--quiet")
    assert (result.stdout, result.stderr) == ("hi\n", "")


def test_options_reach_the_library(play: Play) -> None:
    llm = play("x")
    options = "--ctx 900 --threads 3 --gpu-layers -1 --type-k q8_0 --type-v Q8_0 --flash-attn on --temp 0.5 --seed 7"
    options += " --max-tokens 9 --system Short. --frames 6 --start 1:05.5 --end 75"
    assert run("chat", "mine", "--mmproj", "m.gguf", "-p", "x", *options.split()).exit_code == 0
    model, mmproj, config = llm.loads[0]
    assert (model, mmproj) == ("mine", Path("m.gguf"))
    assert (config.n_ctx, config.n_threads, config.n_gpu_layers) == (900, 3, -1)
    assert (config.type_k, config.type_v, config.flash_attn) == ("q8_0", "q8_0", True)
    call = llm.calls[0]
    assert (call["generate"].temperature, call["generate"].seed, call["generate"].max_tokens) == (0.5, 7, 9)
    assert (call["sampling"].n_frames, call["sampling"].start, call["sampling"].end) == (6, 65.5, 75.0)
    assert call["system"] == "Short."


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["--fps", "2"], (8, 2.0)), (["--fps", "2", "--frames", "50"], (50, 2.0)), (["--start", "3"], (8, None))],
)
def test_frames_default_to_the_models(play: Play, options: list[str], expected: tuple[int, float | None]) -> None:
    llm = play("x")
    run("chat", "-p", "x", *options)
    sampling = llm.calls[0]["sampling"]
    assert (sampling.n_frames, sampling.fps) == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("75", 75), ("1:15", 75), ("1:15.25", 75.25), ("1:01:15", 3675), (".5", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert _options.parse_time(text) == seconds


# --- failures -------------------------------------------------------------------------------------------------------


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
        (["-p", "x", "--frames", "0"], 2, "number of frames is 0"),
        (["-p", "x", "--frames", "-3"], 2, "number of frames is -3"),
        (["-p", "x", "--frames", "two"], 2, "'two'"),
        (["-p", "x", "--fps", "0"], 2, "fps is 0"),
        (["-p", "x", "--fps", "nan"], 2, "fps is nan"),
        (["-p", "x", "--start", "5", "--end", "3"], 2, "start 5 s is after end 3 s"),
        (["-p", "x", "--start", "-1"], 2, "'-1' is no time"),
        (["-p", "x", "--start", "1:75"], 2, "'1:75' is no time"),
        (["-p", "x", "--end", "soon"], 2, "'soon' is no time"),
        (["-p", "x", "--end", "inf"], 2, "'inf' is no time"),
        (["-p", "x", "--ctx", "0"], 2, "n_ctx is 0"),
        (["-p", "x", "--threads", "-1"], 2, "n_threads is -1"),
        (["-p", "x", "--gpu-layers", "-2"], 2, "n_gpu_layers is -2"),
        (["-p", "x", "--type-k", "q9"], 2, "type_k is 'q9'"),
        (["-p", "x", "--type-v", "q8_0", "--flash-attn", "off"], 2, "needs flash attention"),
        (["-p", "x", "--flash-attn", "maybe"], 2, "maybe"),
        (["-p", "x", "--temp", "-1"], 2, "temperature is -1"),
        (["-p", "x", "--seed", "-1"], 2, "seed is -1"),
        (["-p", "x", "--max-tokens", "0"], 2, "max_tokens is 0"),
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


def test_video_given_as_picture(play: Play, tmp_path: Path) -> None:
    play("never said")
    frames = [Image.new("RGB", (4, 4), (0, 0, shade)) for shade in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    line = one_line(run("chat", "--image", tmp_path / "moving.gif", "-p", "x"), 1)
    assert "is an animated picture; give it as a video" in line


def test_unknown_command() -> None:
    assert "No such command 'chit'" in one_line(run("chit"), 2)


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


# --- the conversation -----------------------------------------------------------------------------------------------


class Lines:
    """A reader over a list; an exception in it is raised."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.lines = list(lines)

    def read(self) -> str:
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line


def converse(llm: FakeLLM, *lines: str | BaseException, media: list[Path] | None = None, stats: bool = False) -> None:
    _repl.run(llm.chat(), llm.name, media or [], stats=stats, quiet=False, reader=Lines(*lines))


def test_conversation(clip: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM("one", "two", "three")
    converse(llm, "first?", "", f"/image {picture}", "second?", "third?", media=[clip])
    assert [call["media"] for call in llm.calls] == [[clip], [picture], []]
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_commands(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM(Scripted("hello", stats=Stats(n_frames=8)))
    saved = tmp_path / "talk.md"
    converse(
        llm, "/stats", f'/video "{clip}"', "hi", "/stats", f"/save {saved}", "/help", "/reset", "/quit", "never asked"
    )
    out, err = capsys.readouterr()
    assert out == "hello\n"
    for line in ("no answer yet", "clip.mp4 goes with", "stats: 8 frames", "12 of 512 tokens", f"saved {saved}"):
        assert line in err
    assert llm.chats[0].n_resets == 1
    assert "**user**" in saved.read_text()
    assert f"`{clip}`" in saved.read_text()


def test_saved_json(tmp_path: Path) -> None:
    llm = FakeLLM("hello")
    converse(llm, "hi", f"/save {tmp_path / 'talk.json'}")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved["model"] == "fake"
    assert [(m["role"], m["content"]) for m in saved["messages"]] == [("user", "hi"), ("assistant", "hello")]
    assert list(tmp_path.iterdir()) == [tmp_path / "talk.json"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/video", "name a file: /video clip.mp4"),
        ("/image", "name a file: /image picture.png"),
        ("/save", "name a file: /save talk.md"),
        ("/video none.mp4", "error: none.mp4: no such file"),
        ("/save talk.docx", "error: talk.docx: a transcript ends in .json or .md"),
        ("/save /no/such/folder/talk.md", "error: /no/such/folder/talk.md: cannot be written"),
        ("/vidoe x", "/vidoe is no command"),
    ],
)
def test_bad_commands_keep_the_conversation(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM("fine")
    converse(llm, line, "hi")
    out, err = capsys.readouterr()
    assert told in err
    assert out == "fine\n"


def test_a_path_is_a_question_not_a_command() -> None:
    llm = FakeLLM("a path")
    converse(llm, "/home/me/clip.mp4 is what?")
    assert llm.calls[0]["question"] == "/home/me/clip.mp4 is what?"


def test_ctrl_c_before_the_answer_keeps_the_clip(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM(Scripted(error=KeyboardInterrupt()), "seen")
    converse(llm, "what?", "what?", media=[clip])
    assert [call["media"] for call in llm.calls] == [[clip], [clip]]
    assert "the question was not kept" in capsys.readouterr().err


def test_ctrl_c_during_the_answer_and_at_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM(Scripted("a red", stats=Stats(stop_reason="interrupted")), "go on")
    converse(llm, "what?", KeyboardInterrupt(), "and?")
    out, err = capsys.readouterr()
    assert out == "a red\ngo on\n"
    assert "(stopped)" in err
    assert "(Ctrl-D quits)" in err


def test_an_error_ends_the_turn_only(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM(Scripted(error=ContextError("too long")), "short")
    converse(llm, "what?", "and now?", media=[clip])
    out, err = capsys.readouterr()
    assert (out, llm.calls[1]["media"]) == ("short\n", [])
    assert "error: too long" in err
    assert "clip.mp4 was not kept" in err


@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_ctrl_c_on_a_real_terminal(user_home: Path) -> None:
    """A whole conversation on a pseudo-terminal: an answer that never ends is stopped, the program goes on."""
    import pty

    code = f"""
import itertools, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_llm import FakeLLM, Scripted
from aim_local.results import Stats
from aim_local.cli import _runtime, main
class Endless:
    used, n_ctx, messages = 0, 1, []
    def __init__(self, *_, **__): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def ask(self, question, media, on_text, progress):
        stats = Stats(stop_reason='interrupted')
        try:
            for _ in itertools.count():
                on_text('word ')
                time.sleep(0.05)
        except KeyboardInterrupt:
            return Scripted('word', stats=stats)
FakeLLM.chat = Endless
_runtime.load = FakeLLM().load
sys.argv = ['aim-local', 'chat']
try:
    main()
except SystemExit as e:
    assert e.code == 0
    print('goodbye', flush=True)
    time.sleep(60)
"""
    pid, terminal = pty.fork()  # makes the terminal the child's own, so that Ctrl-C becomes a signal
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-P", "-c", code])
    screen = Screen(terminal)
    try:
        for expected, keys in ((PROMPT, b"hi\r"), (b"word word", b"\x03"), (b"(stopped)", b""), (PROMPT, b"\x04")):
            screen.wait_for(expected)
            os.write(terminal, keys)
        screen.wait_for(b"goodbye")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


class Screen:
    """What a program writes to its terminal, read bit by bit; answers the cursor question that line editors ask."""

    def __init__(self, fd: int) -> None:
        self.fd, self.unread = fd, b""

    def wait_for(self, expected: bytes, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while expected not in self.unread:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{expected!r} did not come, but {self.unread!r}"
            new = os.read(self.fd, 4096)
            if b"\x1b[6n" in new:
                os.write(self.fd, b"\x1b[1;1R")
            self.unread += new
        self.unread = self.unread.partition(expected)[2]


def test_temperature_of_a_conversation(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    from aim_local.cli import chat

    llm = play("hi")
    monkeypatch.setattr(chat, "question_from", lambda *_: None)
    monkeypatch.setattr(_repl, "make_reader", lambda: Lines("hello"))
    assert run("chat").exit_code == 0
    assert llm.chats[0].options["generate"].temperature == 0.2


def test_line_editor(user_home: Path) -> None:
    with create_pipe_input() as keys:
        reader = _reader.TerminalReader(input=keys, output=DummyOutput())
        keys.send_text("hello\r")
        assert reader.read() == "hello"
        keys.send_text("\x1b[200~two\nlines\x1b[201~\r")  # a paste
        assert reader.read() == "two\nlines"
        keys.send_text("one\x1b\rmore\r")  # Alt-Enter
        assert reader.read() == "one\nmore"
        keys.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            reader.read()
        keys.send_text("\x04")
        with pytest.raises(EOFError):
            reader.read()
    history = user_home / "aim-local" / "history"
    assert "+hello" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_completion(tmp_path: Path) -> None:
    def complete(text: str) -> list[str]:
        found = _reader.make_completer().get_completions(Document(text, len(text)), CompleteEvent())
        return [text[: len(text) + c.start_position] + c.text for c in found]

    (tmp_path / "clip.mp4").touch()
    assert complete("/s") == ["/stats", "/save "]
    assert complete(f"/video {tmp_path}/cl") == [f"/video {tmp_path}/clip.mp4"]
    assert complete("what") == []


def test_history_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert type(_reader.open_history(tmp_path / "file" / "history")).__name__ == "InMemoryHistory"


@pytest.mark.parametrize(
    ("typed", "path"),
    [("a b.mp4", "a b.mp4"), ("'a b.mp4'", "a b.mp4"), ('"x.png"', "x.png"), ("a\\ b.mp4", "a b.mp4")],
)
def test_typed_paths(typed: str, path: str) -> None:
    assert _repl.path_from(typed) == Path(path)
    assert _repl.path_from("~/x") == Path.home() / "x"


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_waits_for_a_safe_place() -> None:
    reached = []

    def work() -> None:
        with _turn.Turn(bars=False) as turn:
            signal.raise_signal(signal.SIGINT)
            reached.append("native code goes on")
            turn.progress("vision", 1, 8)
            reached.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["native code goes on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_a_second_ctrl_c_does_not_wait() -> None:
    with _turn.Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts.check()


# --- the other commands ---------------------------------------------------------------------------------------------


def test_models() -> None:
    folder = write_folder(store.models_folder() / "onevision")
    result = run("models")
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("onevision"))
    assert row.split()[1] == "qwen2+llava_onevision"
    assert row.endswith(str(folder))
    found = json.loads(run("models", "--json").stdout)
    assert found["store"] == str(store.models_folder())
    assert [m["name"] for m in found["models"] if not m["bundled"]] == ["onevision"]


def test_models_with_an_empty_store() -> None:
    result = run("models")
    assert result.exit_code == 0
    assert "is empty; `aim-local convert SRC --name NAME` adds a model" in result.stderr


def test_convert_of_nothing(tmp_path: Path) -> None:
    line = one_line(run("convert", tmp_path / "none", "--out", tmp_path / "out"), 1)
    assert "does not exist" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["--name", "a/b"], ["--name", "demo"], []])
def test_convert_needs_a_name_for_the_store(tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "bad name").mkdir()
    assert "model name" in one_line(run("convert", tmp_path / "bad name", *args), 2)


def test_convert_with_a_bad_type(tmp_path: Path) -> None:
    assert "'q9' is not a type" in one_line(run("convert", tmp_path, "--type", "q9"), 1)


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.convert

    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(aim_local.convert, "convert", fail)
    line = one_line(run("convert", tmp_path), 1)
    assert line == "error: converting needs torch, which is not installed; run: pip install 'aim-local[convert]'"


def test_convert_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.convert

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(aim_local.convert, "convert", interrupt)
    result = run("convert", tmp_path)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_quantize_of_nothing(tmp_path: Path) -> None:
    assert "no such model file" in one_line(run("quantize", tmp_path / "none.gguf"), 1)


# --- how it is built ------------------------------------------------------------------------------------------------


def test_docs_are_current() -> None:
    shown = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    assert shown == _docs.markdown(), "run: python -m aim_local.cli._docs > docs/cli.md"


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        f"import sys, atexit; atexit.register(lambda: print(sorted(HEAVY & set(sys.modules)), file=sys.stderr)); {MAIN}"
    )
    heavy = "HEAVY = {'numpy', 'av', 'llama_cpp', 'gguf', 'rich', 'prompt_toolkit', 'torch'}; "
    for option in ("--help", "--version"):
        done = run_process(option, code=heavy + code)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert "Usage" in done.stdout or done.stdout.startswith("aim-local ")


def test_every_command_has_json_and_debug() -> None:
    import typer

    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        options = {opt for param in command.params for opt in param.opts}
        assert {"--json", "--debug"} <= options, name


def test_no_command_shows_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert "chat" in result.stdout


def test_stats_line_is_compact() -> None:
    stats = Stats(
        n_frames=8, n_images=1, n_visual_full=128, n_visual=32, decode_video_ms=12, vision_ms=210.4, prefill_ms=45.1,
        ttft_ms=301.2, n_generated=11, decode_ms=100, kv_bytes=3 << 20, stop_reason="length",
    )  # fmt: skip
    assert stats_line(stats) == (
        "stats: 8 frames, 1 image | visual tokens 128 -> 32 | ms: video 12, vision 210, prefill 45 | TTFT 301 ms | "
        "11 tokens at 100.0/s | KV cache 3.0 MiB | cut at --max-tokens"
    )


def test_a_model_cannot_drive_the_terminal() -> None:
    assert _turn.printable("a\x1b[2J\tb\r\n\x9bc\x7f") == "a[2J\tb\nc"


def test_home_is_untouched() -> None:
    assert "home" in os.environ["HOME"]


# --- visual tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], None),
        (["--tokens", "off"], (1.0, None, None)),
        (["--tokens", "paper"], (0.25, "auto", None)),
        (["--tokens", "fast"], (0.125, "auto", None)),
        (["--tokens", "budget=0.15"], (0.25, "auto", 0.15)),
        (["--keep", "0.5"], (0.5, "auto", None)),
        (["--prune", "3,7", "--keep", "1"], (1.0, (3, 7), None)),
        (["--tokens", "fast", "--prune", "off"], (0.125, None, None)),
    ],
    ids=str,
)
def test_visual_token_options(words: list[str], wanted: Any) -> None:
    from aim_local.cli import _options

    named = dict(zip([w.removeprefix("--") for w in words[::2]], words[1::2], strict=True))
    keep = float(named["keep"]) if "keep" in named else None
    found = _options.visual_tokens(named.get("tokens"), keep, named.get("prune"), named.get("importance"))
    assert (found and (found.merge_retain, found.prune_layers, found.flops_share)) == wanted


@pytest.mark.parametrize(
    "words",
    [
        ["--tokens", "magic"],
        ["--tokens", "budget="],
        ["--tokens", "budget=2"],
        ["--tokens", "budget=0.1", "--keep", "0.5"],
        ["--keep", "0"],
        ["--keep", "1.5"],
        ["--prune", "7,3"],
        ["--prune", "7"],
        ["--importance", "luck"],
    ],
    ids=str,
)
def test_visual_token_options_that_cannot_be(words: list[str], play: Play) -> None:
    play("never said")
    one_line(run("chat", "-p", "what?", *words), 2)
