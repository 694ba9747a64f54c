"""The conversation at the prompt: reads lines, runs /commands, streams answers. Attached files are encoded meanwhile.

Knows what a line means. How lines are read is _reader.py's business; the model is behind `chat.ask`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aim_local.errors import AimError
from aim_local.visible import rejoined, shell_word, visible

from . import _answer, _log, _signals
from ._dropped import is_file, path_from, paths_in, read_line
from ._interrupt import INTERRUPTIONS, was_stopped
from ._media import check_media
from ._reader import ALIASES, COMMANDS, Reader, make_reader
from ._turn import Turn
from ._wrap import columns, filled

if TYPE_CHECKING:
    from aim_local import Chat, Stats
    from aim_local.engine.ahead import Ahead
    from aim_local.lab.plan.ttft import TtftChoice

    from ._ttft import Target

KEYS = "Alt-Enter begins a new line; a pasted text keeps its lines. Ctrl-C stops an answer, Ctrl-D quits."
HINT = "drop a file to ask about it; /help lists commands, Ctrl-D quits"


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
        reader = reader or make_reader(repl.toolbar, quiet=quiet)
        while not repl.done:
            try:
                repl.handle(reader.read())
            except INTERRUPTIONS:
                _signals.check()
                _log.say("(Ctrl-D quits)")
            except EOFError:
                break
            _signals.check()
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
            "/video": self._attach,
            "/image": self._attach,
            "/ask": self._ask,
            "/reset": self._reset,
            "/stats": self._stats,
            "/save": self._save,
            "/help": self._help,
            "/quit": self._quit,
        }

    def handle(self, line: str) -> None:
        """One line of the user's. Our errors and the disk's are told, and the conversation goes on."""
        line = rejoined(line.strip())
        if not line:
            return
        word, _, rest = line.partition(" ")
        command = word if word in self._commands else "" if rest else ALIASES.get(line.lower(), "")
        try:
            if command:
                self._commands[command](rest.strip())
            elif _is_command(line):
                _log.say(f"{word} is no command; {_nearest(word)}")
            else:
                self._files_or_question(line)
        except AimError as e:
            _tell(e)
        except BrokenPipeError:  # nobody reads any more
            raise
        except OSError as e:
            _log.error(AimError(f"{e.filename or 'a file'}: {e.strerror or e}; check the name and the disk"))

    def _files_or_question(self, line: str) -> None:
        """Files that were dropped go with the question that stands beside them, or with the next one."""
        found = read_line(line, self._shown())
        if found.refused:
            _log.error(found.refused)
            return
        if found.paths:
            self.attach(*map(check_media, found.paths), now=bool(found.question))
        if found.question:
            self.ask(found.question)

    def _shown(self) -> set[Path]:
        """Files of this conversation."""
        sources = [source for message in self.chat.messages for source in message["media"]]
        return {Path(path).resolve() for path in (*sources, *(path for path, _ in self.pending))}

    def ask(self, question: str) -> None:
        from aim_local.models.prompt import check_text

        check_text("the question", question)  # before its files go with it
        media = [ahead for _, ahead in self.pending]
        try:
            with Turn(bars=not self.quiet) as turn:
                answer = self.chat.ask(
                    question, media=media, on_text=turn.on_text, progress=turn.progress, should_stop=turn.should_stop
                )
        except INTERRUPTIONS:  # nothing was kept of this turn, so its media goes with the next one
            _log.say("(stopped before the answer; the question was not kept)")
            return
        except AimError as e:
            names = ", ".join(path.name for path, _ in self.pending)
            self.detach()
            _tell(e)
            if names:
                _log.say(f"{names} was not kept; attach it again to ask once more")
            return
        choices = self.choices
        self.detach()
        self.last_stats = answer.stats
        if was_stopped(answer.stats):
            _log.say("(stopped)")
        _answer.print_notes(answer, self.stats, self.quiet)
        if self._target:
            self._target.after(choices, answer.stats, shown=self.stats)

    def attach(self, *paths: Path, now: bool = False) -> None:
        """Put files with the next question. now: it stands in the same line."""
        sampling = {}
        if self._target:
            self.choices.append(self._target.attach(self.chat, paths, self.choices))
            sampling = {"sampling": self.choices[-1].sampling}
        for path in paths:
            self.pending.append((path, self.chat.encode_ahead(path, **sampling)))
            if not self.quiet:
                _log.say(f"{path.name} goes with {'this' if now else 'your next'} question")

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
            said.append(f"{visible(path.name)}: {f'{done} of {total} frames ready' if total else 'opening'}")
        return "  ".join(said)

    def _attach(self, rest: str) -> None:
        if not rest:
            _log.say("name a file: /video clip.mp4 (or drop it here, without a command)")
            return
        self.attach(*map(check_media, paths_in(rest)))

    def _ask(self, rest: str) -> None:
        if not rest:
            _log.say("give a question: /ask ./configure fails, why?")
            return
        self.ask(rest)

    def _reset(self, rest: str) -> None:
        self.detach()
        self.chat.reset()
        self.last_stats = None
        _log.say("new conversation; drop a file here again to ask about it")

    def _stats(self, rest: str) -> None:
        _log.say(_answer.stats_line(self.last_stats) if self.last_stats else "no answer yet")
        if self.chat.n_ctx:
            _log.say(f"context: {self.chat.used} of {self.chat.n_ctx} tokens used")

    def _save(self, rest: str) -> None:
        from aim_local.store.chat_file import SUFFIX
        from aim_local.store.chat_model import typed
        from aim_local.store.transcript import save_transcript

        if not rest:
            _log.say(f"name a file: /save talk.md or /save talk.json to read, /save talk{SUFFIX} to go on later")
            return
        if not any(message["role"] == "assistant" for message in self.chat.messages):
            _log.say("nothing to save yet: ask something first")
            return
        path = path_from(rest)
        if path.suffix.lower() == SUFFIX:
            self.chat.save(path)
            again = ["aim-local", "chat", *typed(self.chat.model.paths), "--resume", str(path)]
            _log.say(f"saved {path}; go on with: {' '.join(map(shell_word, again))}")
        else:
            _log.say(f"saved {save_transcript(path, self.chat.messages, self.model)}")

    def _help(self, rest: str) -> None:
        column = max(map(len, COMMANDS)) + 2
        lines = [f"{command:<{column}}{text}" for command, text in COMMANDS.items()]
        lines += ["A path in the line, typed or dropped, attaches that file; Tab completes names.", KEYS]
        for line in lines:
            indent = " " * (column if line.startswith("/") else 2)
            _log.table(filled(line, columns(sys.stderr), indent))

    def _quit(self, rest: str) -> None:
        self.done = True


def _tell(e: AimError) -> None:
    """An error, with the command that does what it advises."""
    _log.error(str(e).replace("start a new conversation", "start a new conversation (/reset)"))


def _is_command(line: str) -> bool:
    """Whether a line is meant as a command; a path has a second slash, or is there."""
    word = line.partition(" ")[0]
    is_path = "/" in word[1:] or "\n" in line or (len(word) > 1 and is_file(word))
    return line.startswith("/") and not is_path


def _nearest(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), COMMANDS, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else HINT
