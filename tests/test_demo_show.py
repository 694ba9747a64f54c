"""`python -m aim_local.demo`: both sides at any width, plain lines where wished, an exit code to rely on."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from aim_local import Answer, Stats, VisionLLM
from aim_local.demo import desktop, screen, show, sides
from aim_local.demo.__main__ import main
from aim_local.errors import ModelError
from aim_local.store.known import known_models
from aim_local.store.names import bundled_folder

FULL, REDUCED = sides.both_sides()


@pytest.fixture(autouse=True)
def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test opens one; those that ask whether it would be opened look at what is passed."""
    monkeypatch.setattr(desktop.webbrowser, "open", lambda url: pytest.fail(f"a browser was opened: {url}"))


def answered(side: sides.Side, n_visual: int, kv: int, ms: float, text: str = "red cross") -> sides.Side:
    stats = Stats(n_frames=8, n_visual=n_visual, kv_bytes=kv, ttft_ms=ms, n_generated=2)
    return replace(side, has_begun=True, text=text, elapsed_ms=ms, answer=Answer(text, [], stats, None))


BOTH = answered(FULL, 128, 2_000_000, 80.0), answered(REDUCED, 32, 400_000, 40.0)


def drawn(both: tuple[sides.Side, sides.Side], width: int, ascii_only: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={})
    console.print(screen.board(both, width, ascii_only))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


# --- the boards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 72, 75, 76, 80, 100, 128, 200])
def test_boards_fit_and_stand_beside_each_other_where_there_is_room(width: int) -> None:
    lines = drawn(BOTH, width)
    assert max(map(len, lines)) <= min(width, screen.WIDEST)
    titles = [line for line in lines if "--tokens" in line]
    assert len(titles) == (1 if width >= screen.SIDE_BY_SIDE else 2)
    text = "\n".join(lines)
    for said in ("all visual tokens", "reduced", "128", "32", "2.00 MB", "400 kB", "80 ms", "40 ms"):
        assert said in text
    assert text.count("red cross") == 2
    assert "\u2026" not in text, "nothing is cut"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bars_are_what_was_measured(width: int) -> None:
    """A quarter of the tokens, a fifth of the memory, half of the time: to a character."""
    lines = drawn(BOTH, width)
    bars = {
        label: re.findall("\u2588+", "".join(x for x in lines if label in x)) for label in ("tokens ", "KV", "first")
    }
    longest = len(bars["KV"][0])
    for label, share in (("tokens ", 0.25), ("KV", 0.2), ("first", 0.5)):
        full, reduced = map(len, bars[label])
        assert full == longest
        assert abs(reduced - share * full) <= 0.5


def test_nothing_is_drawn_before_it_is_measured() -> None:
    lines = "\n".join(drawn((FULL, REDUCED), 80))
    assert "\u2588" not in lines
    assert lines.count("waits for its turn") == 2
    busy = replace(FULL, has_begun=True, stage="vision", done=3, total=8, elapsed_ms=12.0)
    lines = "\n".join(drawn((busy, REDUCED), 80))
    assert "looking at the frames, 3 of 8" in lines
    assert "12 ms" in lines
    assert lines.count("\u2588") == len(re.findall("\u2588", next(x for x in lines.splitlines() if "time" in x)))
    assert "KV cache" in lines
    assert "MB" not in lines


def test_a_slower_reduced_side_is_shown_as_slower() -> None:
    lines = drawn((BOTH[0], answered(REDUCED, 32, 400_000, 160.0)), 80)
    full, reduced = map(len, re.findall("\u2588+", next(line for line in lines if "first" in line)))
    assert reduced == pytest.approx(2 * full, abs=1)


def test_plain_letters_where_the_terminal_has_no_others() -> None:
    assert "".join(drawn(BOTH, 80, ascii_only=True)).count("#") > 20


def test_a_model_cannot_drive_the_terminal() -> None:
    text = "\n".join(drawn((answered(FULL, 1, 1, 1.0, "\x1b[2Jred\nx"), REDUCED), 80))
    assert "\x1b[2J" not in text
    assert "[2Jred x" in text


def test_the_outcome_is_said_as_it_is() -> None:
    assert screen.outcome(*BOTH) == "The same answer from 32 visual tokens instead of 128, with 20% of the KV cache."
    other = answered(REDUCED, 32, 400_000, 40.0, "blue ring")
    assert screen.outcome(BOTH[0], other).startswith("Another answer from 32")


# --- plain lines ------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "out", "plain"),
    [
        ({"TERM": "xterm-256color"}, Terminal(), False),
        ({}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), False),  # no-color.org: only where it is not empty
        ({"NO_COLOR": "1"}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), True),
        ({"TERM": "xterm"}, io.StringIO(), True),
    ],
)
def test_when_lines_are_plain(environ: Mapping[str, str], out: io.StringIO, plain: bool) -> None:
    assert screen.is_plain(out, environ) == plain


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """The demo through a pipe: exit code, what it printed, its folder."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "aim_local.demo", "--out", str(folder)]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "DISPLAY": ":99",
        "BROWSER": "false",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    return done.returncode, done.stdout + done.stderr, folder


def test_piped_it_is_plain_honest_and_whole(piped: tuple[int, str, Path]) -> None:
    code, text, folder = piped
    assert code == 0, text
    assert "\x1b" not in text
    assert text.isascii()
    lines = text.splitlines()
    assert "The bundled toy model knows coloured shapes only, and these times are the toy's." in lines
    full, reduced = (next(line for line in lines if line.startswith(name)) for name in ("all visual", "reduced"))
    figures = r"\(--tokens {}\): red cross \| {} visual tokens \| KV cache [\d.]+ .B \| first token after \d+ ms"
    assert re.search(figures.format("off", 129), full)
    assert re.search(figures.format("paper", 33), reduced)
    assert "One after the other: one model serves one call at a time." in lines
    assert "4 of 4 questions about the bundled clips answered right: the build works." in lines
    assert f"  {folder.resolve() / 'explain.html'}" in lines
    assert "in your browser" not in text
    assert "What appears in the middle?" in (folder / "explain.html").read_text(encoding="utf-8")
    assert list(folder.iterdir()) == [folder / "explain.html"]
    names = {model.name for model in known_models()}
    pull, chat = (
        next(line.split() for line in lines if line.startswith(f"  aim-local {word}")) for word in ("pull", "chat")
    )
    assert pull[2] in names
    assert chat[2:] == [pull[2], "clip.mp4"]


def test_on_a_terminal_both_sides_are_drawn(tmp_path: Path) -> None:
    """In 80 x 24, all of it on one screen."""
    master, slave = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "DISPLAY", "WAYLAND_DISPLAY")}
    environ |= {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "PYTHONIOENCODING": "utf-8"}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "aim_local.demo", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environ)
    os.close(slave)
    data = b""
    while select.select([master], [], [], 60)[0]:
        try:
            data += os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
    os.close(master)
    text = data.decode()
    assert process.wait(60) == 0, text
    assert "--tokens off" in text
    assert "\u2588" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"
    last = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text[text.rindex("all visual tokens") :]).splitlines()
    assert len(last) + 4 <= 24


# --- exit codes -------------------------------------------------------------------------------------------------------


def test_a_wrong_answer_is_told_and_gives_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = sides.bundled_cases((bundled_folder() or Path()).parent / "clips")
    wrong = [cases[0], replace(cases[1], expected="up"), *cases[2:]]
    monkeypatch.setattr(show, "bundled_cases", lambda folder: wrong)
    assert main(["--out", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "3 of 4 questions about the bundled clips answered right: the build does not work." in text
    assert f"direction.mp4: {cases[1].question} 'left' is wrong, it is 'up'" in text


def test_a_wrong_answer_of_the_reduced_side_gives_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(llm: VisionLLM, case: sides.Case, side: sides.Side, news: object) -> sides.Side:
        found = sides.ask(llm, case, side, lambda side: None)
        return replace(found, text="blue ring") if side.name == "reduced" else found

    monkeypatch.setattr(show, "ask", ask)
    assert main(["--out", str(tmp_path)]) == 1


@pytest.mark.parametrize("where", ["check", "ask"])
def test_ctrl_c_is_one_line(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real signal, while the model works."""
    real = VisionLLM.generate

    def generate(self: VisionLLM, *args: object, **options: object) -> Answer:
        if (where == "ask") == ("on_text" in options):
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *args, **options)

    monkeypatch.setattr(VisionLLM, "generate", generate)
    assert main(["--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert not (tmp_path / "out").exists()


def test_an_answer_cut_by_ctrl_c_is_no_answer() -> None:
    with pytest.raises(KeyboardInterrupt):
        sides.whole(Answer("red", [], Stats(stop_reason="interrupted"), None))


def test_what_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(**options: object) -> VisionLLM:
        raise ModelError("no bundled model here")

    monkeypatch.setattr(VisionLLM, "load", load)
    assert main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: no bundled model here\n"


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file" / "demo")]) == 1
    line = f"error: {tmp_path / 'file' / 'demo'}: Not a directory; name another folder for the page with --out\n"
    assert capsys.readouterr().err == line


# --- the browser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "platform", "found"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1"}, "linux", False),
        ({"DISPLAY": ":0", "CI": "true"}, "linux", False),
        ({}, "darwin", True),
        ({}, "win32", True),
    ],
)
def test_where_a_window_would_be_seen(environ: Mapping[str, str], platform: str, found: bool) -> None:
    assert desktop.has_desktop(environ, platform) == found


def test_the_page_is_opened_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(desktop.webbrowser, "open", lambda url: bool(opened.append(url)) or True)
    assert desktop.open_page(tmp_path / "a page.html")
    assert opened == [(tmp_path / "a page.html").resolve().as_uri()]
    assert opened[0].startswith("file:///")
