"""Answers about a source that is watched: a line each, or a conversation whose questions are about the window as it is.

Knows the terminal. The source and its window are aim_local.live's business.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from aim_local.errors import AimError, CancelledError
from aim_local.visible import rejoined

from . import _answer, _log, _out, _signals
from ._interrupt import INTERRUPTIONS, check_answer, was_stopped
from ._reader import PlainReader, make_reader
from ._turn import Turn

if TYPE_CHECKING:
    from aim_local import Answer, VisionLLM
    from aim_local.live import LiveVideo, Look

_MOST_TOLD = 64  # warnings that are remembered, so that each is said once
_MOST_WAITING = 8  # lines that are said after a line was edited
_HINT = "ask about what is seen; /stats tells numbers, Ctrl-C stops an answer or leaves"


class Terminated(SystemExit):
    """SIGTERM: the watch ends as it was asked to, exit code 0."""


class Stopping:
    """While active, SIGTERM ends a wait at once, and an answer at its next token."""

    def __init__(self) -> None:
        self._asked, self._answering = threading.Event(), False
        self._before: Any = None

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()
        if not self._answering:
            raise Terminated(0)

    def asked(self) -> bool:
        return self._asked.is_set()

    def check(self) -> None:
        """After native work that calls back into Python, where what the handler raised is lost."""
        if self.asked():
            raise Terminated(0)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Native code calls back into Python in there, and would lose an exception."""
        self._answering = True
        try:
            yield
        except CancelledError as e:
            raise (Terminated(0) if self.asked() else e) from e
        finally:
            self._answering = False
        self.check()


@dataclass(frozen=True)
class Shown:
    """How answers are printed. name: of the source."""

    name: str
    json: bool
    stats: bool
    quiet: bool


class Asker:
    """options: of `generate`."""

    def __init__(self, llm: VisionLLM, options: dict[str, Any], shown: Shown, stopping: Stopping) -> None:
        self._llm, self._options, self._shown, self._stopping = llm, options, shown, stopping
        self._told: dict[str, None] = {}

    def line(self, look: Look, question: str) -> None:
        """The answer as one line, or one JSON object in a line."""
        with self._stopping.answering(), Turn(bars=False, text=False) as turn:
            answer = self._ask(turn, look, question)
        if self._shown.json:
            _out.json(self._facts(look, question, answer), indent=None)
        else:
            text = " ".join(_out.answer(answer.text).split()) or "(no answer)"
            _out.line(f"{_clock(look)} [{described(look)}] {text}", now=True)
            self.notes(answer)
        check_answer(answer.stats)

    def streamed(self, look: Look, question: str) -> Answer:
        """The answer as it comes, and what it is about on stderr."""
        with self._stopping.answering(), Turn(bars=not self._shown.quiet) as turn:
            answer = self._ask(turn, look, question)
        self.notes(answer)
        if was_stopped(answer.stats):
            _log.say("(stopped)")
        if not self._shown.quiet:
            _log.say(f"{_clock(look)} [{described(look)}]")
        return answer

    def _ask(self, turn: Turn, look: Look, question: str) -> Answer:
        def should_stop() -> bool:
            return turn.should_stop() or self._stopping.asked()

        return self._llm.generate(
            question,
            [look.item],
            on_text=turn.on_text,
            progress=turn.progress,
            should_stop=should_stop,
            **self._options,
        )

    def notes(self, answer: Answer) -> None:
        """Warnings, each once: a watch goes on for days."""
        new = [line for line in answer.warnings if line not in self._told]
        if not self._shown.quiet:
            _log.warn(new)
        self._told |= dict.fromkeys(new)
        for line in list(self._told)[:-_MOST_TOLD]:
            del self._told[line]
        if self._shown.stats:
            _log.say(_answer.stats_line(answer.stats))

    def _facts(self, look: Look, question: str, answer: Answer) -> dict[str, Any]:
        return {
            "time": datetime.fromtimestamp(look.wall).astimezone().isoformat(timespec="milliseconds"),
            "source": self._shown.name,
            "stream": {"start": round(look.start, 3), "end": round(look.end, 3)},
            "newest_age": round(look.age, 3),
            "frames": look.n_frames,
            "one_of": look.one_of,
            "question": question,
            "text": answer.text,
            "warnings": list(answer.warnings),
            "toy": answer.toy,
            "stats": answer.stats.to_dict(),
        }


class Notices:
    """What the watch says, on stderr; while a line is edited it waits, so that it does not break it."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._waits, self._lock = quiet, False, threading.Lock()
        self._lines: deque[str] = deque(maxlen=_MOST_WAITING)

    def say(self, line: str) -> None:
        with self._lock:
            if self._waits:
                self._lines.append(line)
            elif not self._quiet:
                _log.say(line)

    @property
    def last(self) -> str:
        """What waits to be said, its last line."""
        return self._lines[-1] if self._lines else ""

    @contextmanager
    def waiting(self, wanted: bool) -> Iterator[None]:
        """Around the editing of a line."""
        with self._lock:
            self._waits = wanted
        try:
            yield
        finally:
            with self._lock:
                lines, self._waits = list(self._lines), False
                self._lines.clear()
            for line in lines:
                self.say(line)


def lines(live: LiveVideo, asker: Asker, question: str, every: float | None) -> None:
    """One answer about the first full window, or one every so many seconds, until the source is given up."""
    if every is None:
        asker.line(live.wait(full=True), question)
        return
    for look in live.every(every):
        asker.line(look, question)


def converse(live: LiveVideo, asker: Asker, notices: Notices, *, quiet: bool) -> None:
    """Questions until the user leaves. Raises KeyboardInterrupt for Ctrl-C at the prompt, and what ended the watch."""
    if not quiet:
        _log.say(f"{live.source.name}: {_HINT}")
    reader = make_reader(lambda: notices.last or _toolbar(live), quiet=quiet)
    is_edited = not isinstance(reader, PlainReader)
    last: list[str] = []
    while True:
        try:
            with notices.waiting(is_edited):
                line = rejoined(reader.read().strip())
        except EOFError:
            return
        if line in ("/quit", "/exit", "quit", "exit"):
            return
        if line in ("/help", "?"):
            _log.say(f"{_HINT}; /quit or Ctrl-D leaves")
        elif line == "/stats":
            _log.say(last[-1] if last else "no answer yet")
        elif line.startswith("/") and "/" not in line[1:].split(" ")[0]:
            _log.say(f"{line.split()[0]} is no command here; {_HINT}")
        elif line:
            last[:] = _answered(live, asker, line, last)


def _answered(live: LiveVideo, asker: Asker, question: str, last: list[str]) -> list[str]:
    """The numbers of the answer; those before where there was none. What is wrong with a question is told."""
    if live.look() is None:
        _log.say(f"nothing was seen of {live.source.name} yet; the answer comes with its first frame")
    look = live.wait()  # what ended the watch ends this, too
    try:
        return [_answer.stats_line(asker.streamed(look, question).stats)]
    except INTERRUPTIONS:
        _signals.check()
        _log.say("(stopped before the answer)")
    except AimError as e:
        _log.error(e)
    return last


def described(look: Look) -> str:
    """ "1:02:05-1:02:35, newest 0.4 s old": which time of the stream the model saw."""
    return f"{stream_time(look.start)}-{stream_time(look.end)}, newest {look.age:.1f} s old"


def stream_time(seconds: float) -> str:
    """ "0:35", "1:02:05": whole seconds, as the model is told them."""
    whole = int(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")


def _clock(look: Look) -> str:
    return datetime.fromtimestamp(look.wall).strftime("%Y-%m-%d %H:%M:%S")


def _toolbar(live: LiveVideo) -> str:
    try:
        look = live.look()
    except AimError as e:
        return _log.one_line(str(e))
    name = _log.one_line(live.source.name)
    return f"{name}: {described(look)}, {look.n_frames} frames" if look else f"{name}: opening"
