"""`chat` in a terminal: lines with a meaning, Ctrl-C, the line editor."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

import cli_case
import pytest
from cli_case import Play, run
from fake_llm import FakeLLM, Scripted
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from aim_local import VisionLLM
from aim_local.cli import _dropped, _interrupt, _reader, _repl, _turn
from aim_local.cli import chat as chat_command
from aim_local.errors import ContextError
from aim_local.results import Stats

play = cli_case.play
clip = cli_case.clip
picture = cli_case.picture

PROMPT = b"\x1b[?2004h"  # the line editor switches bracketed paste on when it is ready


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


def test_an_empty_answer_is_said(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    """In a conversation and with -p; not where text came."""
    converse(FakeLLM("", "two"), "first?", "second?")
    assert capsys.readouterr().err.count("(no answer)") == 1
    play("")
    result = run("chat", "-p", "What?")
    assert (result.exit_code, result.stderr.count("(no answer)")) == (0, 1)


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
        ("/image", "name a file: /video clip.mp4"),
        ("/save", "name a file: /save talk.md"),
        ("/video none.mp4", "error: none.mp4: no such file"),
        ("/save talk.docx", "error: talk.docx: a transcript ends in .json or .md"),
        ("/save /no/such/folder/talk.md", "error: /no/such/folder/talk.md: cannot be written"),
        ("/vidoe x", "/vidoe is no command; did you mean /video?"),
    ],
)
def test_bad_commands_keep_the_conversation(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    llm = FakeLLM("fine")
    converse(llm, "hi", line)
    out, err = capsys.readouterr()
    assert told in err
    assert out == "fine\n"


@pytest.mark.parametrize("word", ["exit", "quit", "Exit", ":q", "/exit", "/quit"])
def test_words_that_leave(word: str) -> None:
    llm = FakeLLM("never said")
    converse(llm, word, "what?")
    assert llm.calls == []


@pytest.mark.parametrize("word", ["?", "help", "/help", "/?"])
def test_words_that_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    converse(FakeLLM(), word)
    told = capsys.readouterr().err
    assert all(command in told for command in _reader.COMMANDS)
    assert "Tab completes names" in told


def test_such_words_in_a_question_are_asked() -> None:
    llm = FakeLLM("one", "two")
    converse(llm, "exit through which door?", "help me: what is it?")
    assert len(llm.calls) == 2


@pytest.mark.parametrize(
    ("typed", "told"),
    [("/vidoe x", "did you mean /video?"), ("/sav", "did you mean /save?"), ("/xyzzy", "/help lists commands")],
)
def test_an_unknown_command_names_the_nearest(typed: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    converse(FakeLLM(), typed)
    assert f"{typed.split()[0]} is no command; " in (err := capsys.readouterr().err)
    assert told in err


@pytest.mark.parametrize("name", ["talk.md", "talk.json", "talk.aimchat"])
def test_an_empty_conversation_is_not_saved(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converse(FakeLLM(Scripted(error=ContextError("too long"))), f"/save {tmp_path / name}", "what?")
    assert "nothing to save yet: ask something first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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
    def ask(self, question, media, on_text, progress, should_stop):
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
    monkeypatch.setattr(_repl, "make_reader", lambda *_, **__: Lines("hello"))
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


def test_history_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert type(_reader.open_history(tmp_path / "file" / "history")).__name__ == "InMemoryHistory"


@pytest.mark.parametrize(
    ("typed", "path"),
    [("a b.mp4", "a b.mp4"), ("'a b.mp4'", "a b.mp4"), ('"x.png"', "x.png"), ("a\\ b.mp4", "a b.mp4")],
)
def test_typed_paths(typed: str, path: str) -> None:
    assert _dropped.path_from(typed) == Path(path)
    assert _dropped.path_from("~/x") == Path.home() / "x"


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize("place", ["progress", "should_stop"])
def test_ctrl_c_waits_for_a_safe_place(place: str) -> None:
    reached = []

    def work() -> None:
        with _turn.Turn(bars=False) as turn:
            assert not turn.should_stop()
            signal.raise_signal(signal.SIGINT)
            reached.append("native code goes on")
            turn.progress("vision", 1, 8) if place == "progress" else turn.should_stop()
            reached.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["native code goes on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_a_second_ctrl_c_does_not_wait() -> None:
    with _interrupt.Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts.check()


def test_a_resumed_conversation_is_called_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after its model's file, which is model.gguf for the bundled one."""
    with VisionLLM.load() as llm, llm.chat() as made:
        made.ask("What?")
        made.save(tmp_path / "talk.aimchat")
    names: list[str] = []
    monkeypatch.setattr(_repl, "run", lambda chat, name, *given, **options: names.append(name))
    monkeypatch.setattr(chat_command, "question_from", lambda prompt, stdin: None)
    assert run("chat", "--resume", tmp_path / "talk.aimchat").exit_code == 0
    assert names == ["demo"]
