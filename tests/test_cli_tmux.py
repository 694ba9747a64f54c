"""Conversations in tmux at 60, 80 and 200 columns, as a person sees them; what is kept is in tests/transcripts.

To look at them anew: AIM_LOCAL_KEEP_TRANSCRIPTS=1 pytest tests/test_cli_tmux.py
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_case import MAIN
from thorough import few
from tmux_screen import Screen

import aim_local
from aim_local.cli import _reader

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux")
WIDTHS = (60, 80, 200)
KEPT = Path(__file__).parent / "transcripts"
CLIPS = next(Path(p) / "data" / "clips" for p in aim_local.__path__ if (Path(p) / "data" / "clips").is_dir())
Open = Callable[..., Screen]

LONG = """
import sys
sys.path.insert(0, {tests!r})
from fake_llm import FakeLLM, Scripted
from aim_local.cli import _runtime, main
_runtime.load = FakeLLM(*[Scripted(text) for text in {answers!r}]).load
sys.argv = ["aim-local", "chat"]
main()
"""
WORDS = "a yellow triangle wanders behind the (rather large) boxes and reappears unexpectedly, "
ANSWER = (WORDS * 6 + "and that is all. ") + "x" * 250 + " is a long word."
CHINESE = "\u9ec4\u8272\u7684\u4e09\u89d2\u5f62\u8d70\u5230\u84dd\u8272\u76d2\u5b50\u540e\u9762\uff0c" * 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working directory: two clips and a folder."""
    shutil.copy(CLIPS / "needle.mp4", tmp_path / "needle.mp4")
    shutil.copy(CLIPS / "order.mp4", tmp_path / "my red clip.mp4")
    (tmp_path / "more clips").mkdir()
    return tmp_path


def program(*args: str, code: str = MAIN) -> list[str]:
    argv = f"import sys; sys.argv[0] = 'aim-local'; {code}" if code == MAIN else code
    return [sys.executable, "-P", "-c", argv, *args]


def said(lines: list[str]) -> list[str]:
    """Without what the user typed, whose editor breaks a line anywhere."""
    return [line for line in lines if not line.startswith("> ")]


def check_words(lines: list[str], sentence: str, width: int) -> None:
    """Every word of a sentence is in one line, whole."""
    shown = {word for line in lines for word in line.split()}
    for word in sentence.split():
        assert word in shown or len(word) > width, f"{word!r} is broken:\n" + "\n".join(lines)


@pytest.mark.parametrize("width", few(WIDTHS, 1))
def test_a_conversation_about_a_clip(width: int, folder: Path) -> None:
    """With the bundled model; the whole screen is kept, and compared."""
    with Screen(program("chat", "needle.mp4", "--temp", "0", "--no-cache"), folder, width) as screen:
        screen.wait_for("needle.mp4 goes with your next question", ">")
        screen.type("What appears in the middle?", "Enter")
        screen.wait_for("red cross")
        screen.type("Which colour comes last? 'my red clip.mp4'", "Enter")
        screen.wait_for("my red clip.mp4 goes with this question")
        screen.type("/vidoe", "Enter")
        screen.wait_for("did you mean /video?")
        screen.type("./none.mp4 what is it?", "Enter")
        screen.wait_for("none.mp4: no such file")
        screen.type("https://example.com/clip.mp4", "Enter")
        screen.wait_for("for a stream; put /ask before the line to ask it as it stands")
        screen.type("?", "Enter")
        screen.wait_for("Ctrl-D quits")
        screen.type("exit", "Enter")
        lines = screen.wait_for("(left with 0)")
    assert max(map(len, lines)) <= width
    check_words(said(lines), "my red clip.mp4 goes with this question", width)
    for command, text in _reader.COMMANDS.items():
        check_words(lines, f"{command} {text}", width)
    compare(lines, KEPT / f"conversation-{width}.txt")


def compare(lines: list[str], kept: Path) -> None:
    text = "\n".join(lines).rstrip() + "\n"
    if os.environ.get("AIM_LOCAL_KEEP_TRANSCRIPTS"):
        kept.write_text(text, encoding="utf-8")
    assert text == kept.read_text(encoding="utf-8"), f"look at it, then keep it (see the top of {__name__})"


def test_numbers_fit(folder: Path) -> None:
    """--stats and /stats in 60 columns: broken between their parts."""
    width = 60
    with Screen(program("chat", "needle.mp4", "--stats"), folder, width) as screen:
        screen.wait_for("needle.mp4 goes with your next question", ">")
        screen.type("What appears in the middle?", "Enter")
        screen.wait_for("stats:", "KV cache")
        screen.type("/stats", "Enter")
        lines = screen.wait_for("context:")
        screen.type("/quit", "Enter")
        screen.wait_for("(left with 0)")
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(said(lines)).split())
    (line, again) = re.findall(r"stats: 8 frames \|.*?KV cache \d+\.\d MiB", text)
    assert line == again
    for part in line.removeprefix("stats: ").split(" | "):
        whole = sum(part in shown for shown in lines)
        assert whole == 2 or len(part) > width - 4, f"{part!r} is broken:\n" + "\n".join(lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_answer_breaks_between_words(width: int, folder: Path) -> None:
    code = LONG.format(tests=str(Path(__file__).parent), answers=[ANSWER, CHINESE])
    with Screen(program(code=code), folder, width) as screen:
        screen.wait_for(">")
        screen.type("What?", "Enter")
        lines = screen.wait_for("is a long word.")
        at = next(i for i, line in enumerate(lines) if line.startswith("a yellow"))
        check_words(lines[at:], ANSWER, width)
        assert max(map(len, lines)) <= width
        screen.type("And?", "Enter")
        shown = screen.wait_for(CHINESE)
        assert not any(line.startswith("\uff0c") for line in shown)


def test_a_terminal_that_becomes_narrow(folder: Path) -> None:
    """The answer after it goes by the new width."""
    code = LONG.format(tests=str(Path(__file__).parent), answers=["one", WORDS * 3 + "end."])
    with Screen(program(code=code), folder, 100) as screen:
        screen.wait_for(">")
        screen.type("What?", "Enter")
        screen.wait_for("one")
        screen.resize(40)
        screen.type("And?", "Enter")
        lines = screen.wait_for("end.")
        at = next(i for i, line in enumerate(lines) if line.startswith("a yellow"))
        check_words(lines[at:], WORDS * 3, 40)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_completion_menu(width: int, folder: Path) -> None:
    with Screen(program(code=LONG.format(tests=str(Path(__file__).parent), answers=[])), folder, width) as screen:
        screen.wait_for(">")
        screen.type("/", "Tab")
        lines = screen.wait_for("/quit")
        for command, text in _reader.COMMANDS.items():
            assert any(command in line and text.split("  ")[-1] in line for line in lines), "\n".join(lines)
        screen.type("", "Escape", "C-u")
        screen.type("what is in m", "Tab")
        lines = screen.wait_for("my red clip.mp4", "more clips/")
        assert max(map(len, lines)) <= width
