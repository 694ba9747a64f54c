"""A line of a conversation that names files: what is attached, what is asked, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import cli_case
import pytest
from fake_llm import FakeLLM
from PIL import Image

from aim_local.cli import _dropped, _repl

clip = cli_case.clip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four files, one of them in the home folder; the working directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's").mkdir()
    for name in ("a.mp4", "my red clip.mp4", "it's/b.webm", "home/c.mkv"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypmp42 not really")
    Image.new("RGB", (4, 4)).save(tmp_path / "p (1).png")
    (tmp_path / "notes").write_text("no media")
    return tmp_path


Q = "What happens?"
LINES = [
    # the whole line, as people type it and as file managers drop it
    ("a.mp4", ["a.mp4"], ""),
    ("{}/a.mp4", ["a.mp4"], ""),
    ("./a.mp4 ", ["a.mp4"], ""),
    ("'{}/my red clip.mp4'", ["my red clip.mp4"], ""),
    ('"{}/my red clip.mp4"', ["my red clip.mp4"], ""),
    ("{}/my\\ red\\ clip.mp4", ["my red clip.mp4"], ""),
    ("{}/my red clip.mp4", ["my red clip.mp4"], ""),
    ("my red clip.mp4", ["my red clip.mp4"], ""),
    ("file://{}/my%20red%20clip.mp4", ["my red clip.mp4"], ""),
    ("file://localhost{}/a.mp4", ["a.mp4"], ""),
    ("~/c.mkv", ["home/c.mkv"], ""),
    ("'{}/it'\\''s/b.webm'", ["it's/b.webm"], ""),
    ("{}/it\\'s/b.webm", ["it's/b.webm"], ""),
    ("{}/p\\ \\(1\\).png", ["p (1).png"], ""),
    # several at once
    ("'{}/a.mp4' '{}/p (1).png'", ["a.mp4", "p (1).png"], ""),
    ("file://{}/a.mp4\nfile://{}/p%20(1).png\n", ["a.mp4", "p (1).png"], ""),
    ("{}/a.mp4 {}/my red clip.mp4", ["a.mp4", "my red clip.mp4"], ""),
    # before a question, and behind one
    ("{}/a.mp4 What happens?", ["a.mp4"], Q),
    ("'{}/my red clip.mp4' What happens?", ["my red clip.mp4"], Q),
    ("{}/my red clip.mp4 What happens?", ["my red clip.mp4"], Q),
    ("my red clip.mp4 What happens?", ["my red clip.mp4"], Q),
    ("a.mp4 ~/c.mkv What happens?", ["a.mp4", "home/c.mkv"], Q),
    ("What happens? {}/a.mp4", ["a.mp4"], Q),
    ("What happens? '{}/my red clip.mp4'", ["my red clip.mp4"], Q),
    ("What happens? my red clip.mp4", ["my red clip.mp4"], Q),
    ("What happens? '{}/a.mp4' '{}/p (1).png'", ["a.mp4", "p (1).png"], Q),
    ("what's in {}/a.mp4", ["a.mp4"], "what's in a.mp4"),
    ("what's in 'my red clip.mp4'?", ["my red clip.mp4"], "what's in my red clip.mp4?"),
    ("Isn't it a.mp4?", ["a.mp4"], "Isn't it a.mp4?"),
    ("Which is longer: a.mp4 ~/c.mkv", ["a.mp4", "home/c.mkv"], "Which is longer:"),
    # questions
    ("What happens?", [], Q),
    ("notes", [], "notes"),
    ("and/or what is it?", [], "and/or what is it?"),
    ("24/7", [], "24/7"),
    ("~5 frames: what?", [], "~5 frames: what?"),
    ("Is it like none.mp4?", [], "Is it like none.mp4?"),
    ("Is 'it' a \"ball", [], "Is 'it' a \"ball"),
    ("what about https://example.com/page and so on?", [], "what about https://example.com/page and so on?"),
    ("a" * 5000, [], "a" * 5000),
    ("word " * 400 + "a.mp4 end", [], "word " * 400 + "a.mp4 end"),
]


@pytest.mark.skipif(os.name == "nt", reason="paths are written differently")
@pytest.mark.parametrize(("line", "files", "question"), LINES, ids=[line[:40] for line, _, _ in LINES])
def test_lines(line: str, files: list[str], question: str, folder: Path) -> None:
    found = _dropped.read_line(line.replace("{}", str(folder).replace("'", "\\'")))
    assert found.refused == ""
    assert [path.resolve() for path in found.paths] == [folder / name for name in files]
    assert found.question == question


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/home/nobody/none.mp4", "/home/nobody/none.mp4: no such file"),
        ("/home/nobody/none.mp4 is what?", "/home/nobody/none.mp4: no such file"),
        ("./configure fails, why?", "configure: no such file"),
        ("~/none is what?", "none: no such file"),
        ("none.mp4", "none.mp4: no such file"),
        ("'none at all.mp4'", "none at all.mp4: no such file"),
        ("a.mp4 ./none.mp4 which?", "none.mp4: no such file"),
        ("none.mp4 what is first?", "none.mp4: no such file"),  # a slip, not a question
        ("./it's/", "is a folder: name a file in it"),
        ("https://example.com/a.mp4", "download it first, or `aim-local watch URL` for a stream"),
        ("what is in https://example.com/a.mp4", "download it first, or `aim-local watch URL` for a stream"),
        ("rtsp://camera/stream what is it?", "rtsp://camera/stream is a URL"),
    ],
)
def test_refused_lines_say_how_to_ask_them(line: str, told: str, folder: Path) -> None:
    found = _dropped.read_line(line)
    assert told in found.refused
    assert "put /ask before the line" in found.refused
    assert found.paths == ()


def test_a_file_of_the_conversation_is_spoken_of(folder: Path) -> None:
    known = {(folder / "a.mp4").resolve()}
    assert _dropped.read_line("Is it the ball of a.mp4?", known) == _dropped.Line("Is it the ball of a.mp4?")
    assert _dropped.read_line("a.mp4", known).paths == (Path("a.mp4"),)  # alone it is shown again


# --- in a conversation -----------------------------------------------------------------------------------------------


def converse(*lines: str) -> FakeLLM:
    llm = FakeLLM("one", "two", "three")
    repl = _repl.Repl(llm.chat(), "fake", stats=False, quiet=False)
    for line in lines:
        repl.handle(line)
    return llm


def test_dropped_files_go_with_a_question(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = converse("'my red clip.mp4'", "p (1).png", "What is it?", "a.mp4 And here?", "Again, in a.mp4?")
    asked = [([path.name for path in call["media"]], call["question"]) for call in llm.calls]
    assert asked == [
        (["my red clip.mp4", "p (1).png"], "What is it?"),
        (["a.mp4"], "And here?"),
        ([], "Again, in a.mp4?"),
    ]
    told = capsys.readouterr().err
    assert "my red clip.mp4 goes with your next question" in told
    assert "a.mp4 goes with this question" in told


def test_a_missing_file_is_told_and_ask_asks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = converse("./none.mp4 what?", "/ask ./none.mp4 what?", "/ask")
    assert [call["question"] for call in llm.calls] == ["./none.mp4 what?"]
    told = capsys.readouterr().err
    assert "none.mp4: no such file; put /ask before the line" in told
    assert "give a question: /ask" in told


def test_a_file_without_media_in_it_is_told_when_it_is_attached(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("no clip")
    llm = converse("./notes.txt", "What?")
    assert [call["media"] for call in llm.calls] == [[]]
    assert "notes.txt: holds text, not a video or image" in capsys.readouterr().err


def test_video_takes_what_was_dropped_behind_it(folder: Path) -> None:
    llm = converse("/video 'a.mp4' 'my red clip.mp4'", "/image my red clip.mp4", "What?")
    assert [path.name for path in llm.calls[0]["media"]] == ["a.mp4", "my red clip.mp4", "my red clip.mp4"]


def test_what_is_no_media_is_told_and_nothing_attached(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty.mp4").touch()
    llm = converse("./empty.mp4 a.mp4 What?", "What?")
    assert [call["media"] for call in llm.calls] == [[]]
    assert "empty.mp4: is empty (0 bytes)" in capsys.readouterr().err
