"""What people hand over to be said: a talk on standard input, a history, questions of a run, texts of options.

Each is read to its end: the talk is held and saved in every form, which are read again; the questions are answered, and
the run is taken up again; keys of a file open the service, and nothing else does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import category

from fuzz.damage import TEXTS, damage_bytes, damage_json, damage_text
from fuzz.outcome import ROOT, fault_of_line

SHORT = 5
MEMORY_MIB = 256
CLIP = ROOT / "aim_local" / "data" / "clips" / "time.mp4"
MOST_LINES = 10  # of a talk or a run: each is an answer
LONGEST, LONGEST_PATH = 1500, 7000  # bytes of a line that may be asked, and of one that is a path

TALK = ["What is there?", "/video clip.mp4", "Which way?", "/stats", "clip.mp4 And now?", "/reset", "'clip.mp4'",
        "/ask ./clip.mp4 is what?", "/image picture.png", "/help", "/nothing", "/save talk.json", "/quit"]  # fmt: skip
LINES = ("/video", "/video nothing.mp4", "/video a b c", "/save", "/save x.txt", "/save .json", "/save 'a.md", "/ask",
         "file://clip.mp4", "http://x/y.mp4", "~nobody/x.mp4", "'clip.mp4", "clip.mp4 clip.mp4 clip.mp4", "./", "exit",
         "picture.png? clip.mp4.", "/reset /reset", "\\", "/video \\", "\x1b[A", "\x04", "\x00.mp4",
         "/image clip\\.mp4", "x" * 5000 + ".mp4", "a " * 3000, "<image>", "<|im_end|>", "C:\\clip.mp4",
         "/save a/b.json", "?", "//")  # fmt: skip
TURNS = [
    {"role": "user", "content": "What is there?", "media": ["clip.mp4"]},
    {"role": "assistant", "content": "A circle.", "media": []},
    {"role": "user", "content": "And then?", "media": []},
    {"role": "assistant", "content": "It moves.", "media": []},
]
RUN = [
    {"id": "a", "video": "clip.mp4", "question": "What?", "frames": 2, "tokens": "paper", "max_tokens": 2},
    {"image": ["picture.png"], "question": "And?", "system": "Be brief.", "tokens": "off:prune=1-2"},
    {"media": "clip.mp4", "question": "How many?", "fps": 2.0, "start": 0.5, "end": 1.5, "pick": "time"},
]
VALUES = ["paper:keep=0.3:prune=1-2", "budget=0.15", "off", "8", "0.5", "1:15.5", "0:01:15", "800ms", "1.5min", "2G",
          "1.5GiB", "8,32", "a,b", "auto", "file:///tmp/x.mp4", "type_k=q8_0,n_ctx=99", "14-22",
          "ward:window=4"]  # fmt: skip
KEYS = b"0123456789abcdef\r\n\n  secret-of-the-house  \nanother_key_here\n"


def seeds(folder: Path) -> list[Path]:
    talk = "".join(f"{line}\n" for line in TALK)
    files = {
        "a.talk.txt": talk.encode(),
        "a.turns.json": json.dumps({"model": "demo", "messages": TURNS}).encode(),
        "a.history": b"".join(b"\n# 2026-01-01 00:00:00.000000\n+%s\n" % line.encode() for line in TALK[:4]),
        "a.run.jsonl": "".join(json.dumps(row) + "\n" for row in RUN).encode(),
        "a.values.txt": "\n".join(VALUES).encode(),
        "a.keys.txt": KEYS,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


# --- mutants ----------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A line of it, in the way of its kind; or bytes."""
    if rng.random() < 0.1:
        return damage_bytes(data, rng)
    if data.startswith(b'{"model"'):
        return damage_json(data, rng)
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if lines[at].startswith(b"{"):
        lines[at] = damage_json(lines[at], rng).replace(b"\n", b" ")
        return b"\n".join(lines)
    text = lines[at].decode("utf-8", "surrogateescape")
    match rng.randrange(6):
        case 0:
            lines.insert(at, rng.choice((*LINES, *TEXTS)).encode("utf-8", "surrogatepass"))
        case 1:
            lines[at] = rng.choice(lines)
        case 2:
            lines[at] = numbered(text, rng).encode("utf-8", "surrogatepass")
        case 3:
            lines[at] += b" " + rng.choice(LINES).encode()
        case 4:
            lines[at] = rng.choice((b"\xef\xbb\xbf", b"+", b"# ", b"\xff", b"\x9b", b"")) + lines[at]
        case _:
            lines[at] = damage_text(text, rng).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def numbered(text: str, rng: random.Random) -> str:
    """With another number in place of one."""
    found = list(re.finditer(r"[\d.]+", text))
    if not found:
        return text
    number = rng.choice(("9" * 400, "9" * 5000, "1e999", "nan", "-1", "\u0665", "1_0", "0", "1.5.5"))
    place = rng.choice(found)
    return text[: place.start()] + number + text[place.end() :]


# --- readers ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> None:
    do = next(do for suffix, do in READERS.items() if path.name.endswith(suffix))
    folder, here = Path(tempfile.mkdtemp()), Path.cwd()
    try:
        for name, file in media().items():
            (folder / name).symlink_to(file)
        os.chdir(folder)
        do(path.read_bytes(), folder)
    finally:
        os.chdir(here)
        shutil.rmtree(folder, ignore_errors=True)


@cache
def media() -> dict[str, Path]:
    from PIL import Image

    picture = Path(tempfile.mkdtemp()) / "picture.png"
    Image.new("RGB", (32, 24), "red").save(picture)
    return {"clip.mp4": CLIP, "picture.png": picture}


@cache
def model() -> Any:
    from aim_local import LoadConfig, VisionLLM

    return VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False))


def brief() -> Any:
    from aim_local import GenerateConfig

    return GenerateConfig(max_tokens=2)


@contextlib.contextmanager
def terminal(typed: bytes) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Standard streams of a process whose input is a file. What it said was clean in the end."""
    before, said, told = (sys.stdin, sys.stdout, sys.stderr), io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(typed), "utf-8", newline=None)
    sys.stdout, sys.stderr = (io.TextIOWrapper(stream, "utf-8", write_through=True) for stream in (said, told))
    try:
        yield said, told
        for stream in (said, told):
            for line in stream.getvalue().decode().split("\n"):
                fault = fault_of_line(line.replace("\t", " ")) if line.strip() else ""
                assert fault in ("", "over 500 characters"), f"{fault}: {line!r:.200}"
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def read_talk(data: bytes, folder: Path) -> None:
    from aim_local.cli import _repl
    from aim_local.cli._reader import PlainReader

    lines = [line[: LONGEST_PATH if line[:1] in b"/.~" else LONGEST] for line in data.split(b"\n")[:MOST_LINES]]
    lines = [line for line in lines if not leaves(line)]
    with model().chat(generate=brief()) as chat:
        with terminal(b"\n".join(lines)):
            _repl.run(chat, "demo", [], stats=True, quiet=False, reader=PlainReader())
        messages = chat.messages
        if any(message["role"] == "assistant" for message in messages):
            check_saved(chat, messages, folder)
    assert {p.name for p in folder.rglob("*.aim-part")} == set()


def leaves(line: bytes) -> bool:
    """Whether it would save a file elsewhere."""
    return b"/save" in line and any(sign in line.partition(b"/save")[2] for sign in (b"/", b"~", b"..", b"\\"))


def check_saved(chat: Any, messages: Sequence[Any], folder: Path) -> None:
    """All three forms of a saved talk say what was said."""
    from aim_local.store.transcript import save_transcript

    told = json.loads(save_transcript(folder / "saved.json", messages, "demo").read_bytes())["messages"]
    assert told == json.loads(json.dumps(messages, default=str))
    text = save_transcript(folder / "saved.md", messages, "demo").read_text(encoding="utf-8")
    assert not any(category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text)
    with model().load_chat(chat.save(folder / "saved.aimchat"), generate=brief()) as again:
        assert again.messages == messages


def read_turns(data: bytes, folder: Path) -> None:
    """A talk that was saved as JSON, taken for what was said before, as a program would."""
    from aim_local import Turn
    from aim_local.errors import AimError

    try:
        messages = json.loads(data)["messages"]
        turns = [Turn(one["role"], one["content"], one.get("media", ())) for one in messages[:MOST_LINES]]
        assert sum(len(turn.text) for turn in turns) < 4 * LONGEST, "a test of length is another's matter"
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        AssertionError,
    ):  # the program's own matter
        raise AimError("this is no talk; give one that was saved") from None
    with model().chat(generate=brief(), history=turns) as chat:
        chat.ask("And now?")
        assert [m["role"] for m in chat.messages][-2:] == ["user", "assistant"]
        assert [m["content"] for m in chat.messages][:-2] == [turn.text for turn in turns]
        check_saved(chat, chat.messages, folder)


def read_history(data: bytes, folder: Path) -> None:
    """Of the prompt: the last entry comes back with the arrow key, and no entry does anything to the terminal."""
    from prompt_toolkit.data_structures import Size
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output.vt100 import Vt100_Output

    from aim_local.cli._dropped import read_line
    from aim_local.cli._reader import TerminalReader, open_history

    path, shown = folder / "history", io.StringIO()
    path.write_bytes(data)
    kept = list(open_history(path).load_history_strings())
    with create_pipe_input() as keys:
        output = Vt100_Output(shown, lambda: Size(rows=24, columns=80), term="xterm")
        reader = TerminalReader(path, input=keys, output=output)
        keys.send_text("a last line\r")
        assert reader.read() == "a last line"
    again = list(open_history(path).load_history_strings())
    assert again[0] == "a last line"
    assert len(again) == len(kept) + 1, "entries were lost"
    for entry in again[:MOST_LINES]:
        read_line(entry)


def read_run(data: bytes, folder: Path) -> None:
    """Answered to the end; the same run again answers nothing anew and changes nothing."""
    from aim_local import store
    from aim_local.batch import run as batch
    from aim_local.batch.job import Settings
    from aim_local.batch.questions import Question, check_clips, read_questions

    file = folder / "questions.jsonl"
    file.write_bytes(b"\n".join(line[:LONGEST_PATH] for line in data.split(b"\n")[:MOST_LINES]))
    asked = check_clips(read_questions(file))
    paths, settings, out = store.resolve(None), Settings(generate=brief()), folder / "answers.jsonl"
    summary = batch.run(asked, out, paths, settings, Here(settings))
    first = out.read_bytes()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["id"] for row in rows] == [line.id for line in asked.lines]
    for row, line in zip(rows, asked.lines, strict=True):
        if "error" in row:
            assert not fault_of_line(row["error"]), row
            assert "internal" not in row["error"], row
        else:
            assert isinstance(line, Question)
            assert row["question"] == line.question
    assert summary.n_answered + summary.n_errors == len(rows)
    again = batch.run(asked, out, paths, settings, Here(settings))
    assert again.n_earlier == len(rows)
    assert out.read_bytes() == first


class Here:
    """A worker in this process."""

    notes: tuple[str, ...] = ()

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def first_changed(self, answered: Any) -> str | None:
        return None

    def answers(self, tasks: Sequence[Any]) -> Iterator[Any]:
        from aim_local.batch.answer import answer
        from aim_local.batch.job import Outcome, question_dict, question_from

        for index, question in tasks:
            sent = json.loads(json.dumps(question_dict(question)))
            yield Outcome(index, *answer(model(), self._settings, question_from(sent)))

    def finished(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


def read_values(data: bytes, folder: Path) -> None:
    """Texts of options, each read as everything that an option can be."""
    import typer

    from aim_local import LoadConfig, settings
    from aim_local.cli import _values
    from aim_local.errors import UsageError

    parsers: list[Callable[[str], object]] = [
        settings.parse_setting, settings.parse_layers, settings.parse_flash, settings.parse_gpu_layers,
        _values.parse_whole, _values.parse_number, _values.parse_file, _values.parse_words, _values.parse_time,
        _values.parse_duration, _values.parse_size, lambda text: _values.parse_frames(text, "--frames"),
        lambda text: settings.refine_load(LoadConfig(), text),
    ]  # fmt: skip
    for line in data.split(b"\n")[:40]:
        text = line.decode("utf-8", "surrogateescape").replace("\0", "")  # which no argument has
        for parse in parsers:
            refusals = list[str]()
            try:
                parse(text)
            except UsageError as e:
                refusals.append(str(e))
            except typer.BadParameter:
                continue
            assert not any(map(fault_of_line, refusals)), refusals


def read_keys(data: bytes, folder: Path) -> None:
    """Every line of the file is a key, and nothing else is."""
    from aim_local.cli.serve import ListenOptions
    from aim_local.errors import AimError
    from aim_local.server.failures import RequestError
    from aim_local.server.http.guard import Guard

    file = folder / "keys"
    file.write_bytes(data)
    lines = {line.strip() for line in data.decode("utf-8-sig", "replace").splitlines()} - {""}
    try:
        guard = Guard("127.0.0.1", ListenOptions(api_key_file=file).keys())
    except AimError:
        assert not lines or not all(re.fullmatch("[!-~]{8,}", line) for line in lines), "good keys are refused"
        raise
    for given in lines | {part for line in lines for part in line.split()} | {"", " ", "wrong-key-here"}:
        try:
            opened = bool(guard.account("/v1/models", f"Bearer {given}", "1.2.3.4"))
        except RequestError:
            opened = False
        assert opened == (given in lines), f"{given!r:.60} {'opens' if opened else 'opens not'}"


READERS: dict[str, Callable[[bytes, Path], None]] = {
    ".talk.txt": read_talk,
    ".turns.json": read_turns,
    ".history": read_history,
    ".run.jsonl": read_run,
    ".values.txt": read_values,
    ".keys.txt": read_keys,
}
SUFFIXES = tuple(READERS)
