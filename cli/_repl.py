"""The conversation at the prompt: reads lines, runs /commands, streams answers. Attached files are encoded meanwhile.

Knows what a line means. How lines are read is _reader.py's business; the model is behind `chat.ask`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aim_local.errors import AimError

from . import _answer, _log, _media
from ._interrupt import INTERRUPTIONS, was_stopped
from ._reader import COMMANDS, Reader, make_reader
from ._turn import Turn

if TYPE_CHECKING:
    from aim_local import Chat, Stats
    from aim_local.engine.ahead import Ahead
    from aim_local.lab.plan.ttft import TtftChoice

    from ._ttft import Target

HINT = "/help lists the commands, Ctrl-C stops an answer, Ctrl-D quits"


def run(
    chat: Chat,
    model: str,
    media: list[Path],
    *,
    stats: bool,
    quiet: bool,
    reader: Reader | None = None,
    target: Target | None = None,
) -> None:
    """Converse until the user leaves. `media` goes with the first question. target: of --ttft."""
    repl = Repl(chat, model, stats=stats, quiet=quiet, target=target)
    if not quiet:
        _log.say(f"{model}: {HINT}")
    try:
        if media:
            repl.attach(*media)
        reader = reader or make_reader(repl.toolbar)
        while not repl.done:
            try:
                repl.handle(reader.read())
            except INTERRUPTIONS:
                _log.say("(Ctrl-D quits)")
            except EOFError:
                break
    finally:
        repl.detach()


class Repl:
    """One conversation. `pending` media goes with the next question; it is encoded in the background until then."""

    def __init__(self, chat: Chat, model: str, *, stats: bool, quiet: bool, target: Target | None = None) -> None:
        self.chat, self._target = chat, target
        self.choices: list[TtftChoice] = []  # what was chosen for the next question
        self.model = model
        self.stats = stats
        self.quiet = quiet
        self.pending: list[tuple[Path, Ahead]] = []
        self.last_stats: Stats | None = None
        self.done = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/video": self._video,
            "/image": self._image,
            "/reset": self._reset,
            "/stats": self._stats,
            "/save": self._save,
            "/help": self._help,
            "/quit": self._quit,
        }

    def handle(self, line: str) -> None:
        """One line of the user's. Our errors are told and the conversation goes on."""
        line = line.strip()
        if not line:
            return
        word, _, rest = line.partition(" ")
        try:
            if word in self._commands:
                self._commands[word](rest.strip())
            elif line.startswith("/") and "/" not in word[1:] and "\n" not in line:
                _log.say(f"{word} is no command; {HINT}")
            else:
                self.ask(line)
        except AimError as e:
            _log.say(f"error: {e}")

    def ask(self, question: str) -> None:
        media = [ahead for _, ahead in self.pending]
        try:
            with Turn(bars=not self.quiet) as turn:
                answer = self.chat.ask(
                    question, media=media, on_text=turn.on_text, progress=turn.progress, should_stop=turn.should_stop
                )
        except INTERRUPTIONS:  # nothing was kept of this turn, so its media goes with the next one
            _log.say("(stopped before the answer; the question was not kept)")
            return
        except AimError:
            if media:
                names = ", ".join(path.name for path, _ in self.pending)
                _log.say(f"{names} was not kept; attach it again to ask once more")
            self.detach()
            raise
        choices = self.choices
        self.detach()
        self.last_stats = answer.stats
        if was_stopped(answer.stats):
            _log.say("(stopped)")
        _answer.print_notes(answer, self.stats, self.quiet)
        if self._target:
            self._target.after(choices, answer.stats, shown=self.stats)

    def attach(self, *paths: Path) -> None:
        """Put files with the next question."""
        sampling = {}
        if self._target:
            self.choices.append(self._target.attach(self.chat, paths, self.choices))
            sampling = {"sampling": self.choices[-1].sampling}
        for path in paths:
            self.pending.append((path, self.chat.encode_ahead(path, **sampling)))
            if not self.quiet:
                _log.say(f"{path.name} goes with your next question")

    def detach(self) -> None:
        """Nothing goes with the next question; what is encoded in the background ends."""
        pending, self.pending, self.choices = self.pending, [], []
        for _, ahead in pending:
            ahead.close()

    def toolbar(self) -> str:
        """What is encoded of the attached files; "" without any."""
        said = []
        for path, ahead in self.pending:
            done, total = ahead.progress
            said.append(f"{path.name}: {f'{done} of {total} frames ready' if total else 'opening'}")
        return "  ".join(said)

    def _video(self, rest: str) -> None:
        if not rest:
            _log.say("name a file: /video clip.mp4")
            return
        self.attach(_media.check_video(path_from(rest)))

    def _image(self, rest: str) -> None:
        if not rest:
            _log.say("name a file: /image picture.png")
            return
        self.attach(_media.check_image(path_from(rest)))

    def _reset(self, rest: str) -> None:
        self.detach()
        self.chat.reset()
        self.last_stats = None
        _log.say("new conversation; attach a file again with /video or /image")

    def _stats(self, rest: str) -> None:
        _log.say(_answer.stats_line(self.last_stats) if self.last_stats else "no answer yet")
        if self.chat.n_ctx:
            _log.say(f"context: {self.chat.used} of {self.chat.n_ctx} tokens used")

    def _save(self, rest: str) -> None:
        from aim_local.store.chat_file import SUFFIX
        from aim_local.store.transcript import save_transcript

        if not rest:
            _log.say(f"name a file: /save talk.md or /save talk.json to read, /save talk{SUFFIX} to go on later")
            return
        path = path_from(rest)
        if path.suffix.lower() == SUFFIX:
            self.chat.save(path)
            _log.say(f"saved {path}; go on with: aim-local chat --resume {shlex.quote(str(path))}")
        else:
            _log.say(f"saved {save_transcript(path, self.chat.messages, self.model)}")

    def _help(self, rest: str) -> None:
        width = max(map(len, COMMANDS))
        for command, text in COMMANDS.items():
            print(f"{command:<{width}}  {text}", file=sys.stderr)
        print("Alt-Enter begins a new line; a pasted text keeps its lines.", file=sys.stderr)

    def _quit(self, rest: str) -> None:
        self.done = True


def path_from(text: str) -> Path:
    """A path as people type or drop it: quoted, with ~, or with escaped spaces."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    elif sys.platform != "win32":
        text = text.replace("\\ ", " ")
    return Path(text).expanduser()
