"""Lines that break between words: checked with textwrap, with another library's widths, and by what must never be."""

from __future__ import annotations

import random
import sys
import textwrap
from collections.abc import Callable

import pytest
from prompt_toolkit.utils import get_cwidth

from aim_local.cli import _log, _turn, _wrap

WORDS = [
    "a",
    "red",
    "ball",
    "rolls",
    "behind",
    "the",
    "longest",
    "blue",
    "boxes,",
    "and",
    "comes",
    "out",
    "again:",
    "why?",
    "(nobody",
    "knows)",
]
CJK = "红色的球从左边滚到右边\uff0c然后停在蓝色的盒子旁边。"
JAPANESE = "「赤いボール」は左から右へころがります。"


def wrapped(text: str, width: int | Callable[[], int], pieces: random.Random | None = None) -> str:
    """The text as it comes out, fed whole or in random pieces."""
    out: list[str] = []
    wrapper = _wrap.Wrapper(out.append, width if callable(width) else lambda: width)
    at = 0
    while at < len(text):
        n = pieces.randint(1, 5) if pieces else len(text)
        wrapper.feed(text[at : at + n])
        at += n
    wrapper.finish()
    return "".join(out)


@pytest.mark.parametrize("seed", range(20))
def test_words_wrap_as_textwrap_does(seed: int) -> None:
    rng = random.Random(seed)
    text = " ".join(rng.choices(WORDS, k=60))
    width = rng.randint(12, 90)
    wanted = textwrap.wrap(text, width, break_on_hyphens=False)
    assert wrapped(text, width, rng).split("\n") == wanted


def test_lines_paragraphs_and_indents_stay() -> None:
    text = "One.\n\n  - two\n\tthree\n"
    assert wrapped(text, 40) == "One.\n\n  - two\n        three\n"
    assert wrapped("a  b   c", 40) == "a  b   c"
    assert wrapped("ends with blanks   \nnext", 40) == "ends with blanks\nnext"


def test_only_a_word_longer_than_a_line_breaks() -> None:
    assert wrapped("see " + "x" * 25 + " there", 10) == "see\nxxxxxxxxxx\nxxxxxxxxxx\nxxxxx\nthere"


@pytest.mark.parametrize("text", [CJK, JAPANESE, CJK * 3 + " mixed with words " + JAPANESE])
@pytest.mark.parametrize("width", range(10, 40, 3))
def test_wide_characters(text: str, width: int) -> None:
    """Two columns each; lines break between them, never before what closes, never after what opens."""
    lines = wrapped(text, width, random.Random(width)).split("\n")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        assert get_cwidth(line) <= width
        assert line[0] not in "\uff0c。」"
        assert line[-1] != "「"
    for word in ("mixed", "with", "words"):
        assert (word in text) == any(word in line for line in lines)


def test_a_terminal_that_changes_its_width() -> None:
    """What is on the screen was broken by the terminal; what comes goes by the new width."""
    out: list[str] = []
    wrapper = _wrap.Wrapper(out.append, lambda: 10 if "four" in "".join(out) else 40)
    wrapper.feed("one two three four five six seven")
    wrapper.finish()
    first, *rest = "".join(out).split("\n")
    assert first == "one two three four"  # of 18 columns, which a terminal of 10 shows in two lines: 8 in the second
    assert rest == ["five six", "seven"]


def test_messages_keep_parts_between_bars() -> None:
    text = "stats: 8 frames | visual tokens 129 -> 129 | ms: prefill 32 | TTFT 37 ms"
    assert _wrap.filled(text, 80, "  ") == text
    assert _wrap.filled(text, 40, "  ").split("\n") == [
        "stats: 8 frames",
        "  | visual tokens 129 -> 129",
        "  | ms: prefill 32 | TTFT 37 ms",
    ]
    long = "stats: " + " ".join(["part"] * 20) + " | end"
    assert max(map(len, _wrap.filled(long, 30, "  ").split("\n"))) <= 30
    assert _wrap.filled("/a/" + "long" * 20, 30) == "/a/" + "long" * 20


# --- where it is used ----------------------------------------------------------------------------------------------


class Terminal:
    """A stream that says that it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no file")


def test_an_answer_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, text = Terminal(), " ".join(WORDS * 3)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "30")
    with _turn.Turn(bars=False) as turn:
        for c in text:
            turn.on_text(c)
    assert screen.text == textwrap.fill(text, 30, break_on_hyphens=False) + "\n"


def test_an_answer_in_a_pipe_is_not_touched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = " ".join(WORDS * 3) + "  "
    with _turn.Turn(bars=False) as turn:
        for c in text:
            turn.on_text(c)
    assert capsys.readouterr().out == text + "\n"


def test_a_message_on_a_terminal_and_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "error: " + " ".join(WORDS)
    monkeypatch.setenv("COLUMNS", "30")
    _log.say(text)
    assert capsys.readouterr().err == text + "\n"
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    _log.say(text)
    assert screen.text == textwrap.fill(text, 30, subsequent_indent="  ", break_on_hyphens=False) + "\n"
