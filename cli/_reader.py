"""Reads the user's lines: with editing, history and completion on a terminal, plainly elsewhere.

Knows prompt-toolkit. What a line means is _repl.py's business.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

PROMPT = "> "
_REFRESH = 0.5  # seconds between two looks at what is told below the prompt
COMMANDS = {
    "/video": "PATH  a video goes with the next question",
    "/image": "PATH  a picture goes with the next question",
    "/reset": "forget the conversation",
    "/stats": "numbers of the last answer, and how full the context is",
    "/save": "PATH  write the conversation: .md or .json to read, .aimchat to go on later (chat --resume)",
    "/help": "this list",
    "/quit": "leave",
}
TAKES_PATH = ("/video", "/image", "/save")


class Reader(Protocol):
    """Raises EOFError at the end and KeyboardInterrupt for Ctrl-C."""

    def read(self) -> str: ...


def make_reader(toolbar: Callable[[], str]) -> Reader:
    """A line editor where stdin and stdout are terminals that can be one, else plain lines.

    toolbar: what stands below the editor, "" for nothing; asked again and again.
    """
    if sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return TerminalReader(toolbar=toolbar)
    return PlainReader()


class PlainReader:
    """Lines of stdin; the prompt goes to stderr, so that stdout holds answers only."""

    def read(self) -> str:
        print(PROMPT, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            raise EOFError
        return line


class TerminalReader:
    """prompt-toolkit's editor. `options` are its PromptSession's; tests pass an input and an output."""

    def __init__(self, history: Path | None = None, toolbar: Callable[[], str] = lambda: "", **options: Any) -> None:
        from prompt_toolkit import PromptSession

        self._toolbar = toolbar
        self._session: PromptSession[str] = PromptSession(
            history=open_history(history or history_file()),
            completer=make_completer(),
            complete_while_typing=False,
            key_bindings=key_bindings(),
            **options,
        )

    def read(self) -> str:
        self._session.bottom_toolbar = self._toolbar if self._toolbar() else None
        return self._session.prompt(PROMPT, refresh_interval=_REFRESH)


def history_file() -> Path:
    from aim_local.store.names import state_folder

    return state_folder() / "history"


def open_history(path: Path) -> History:
    """The history in `path`; one in memory where the folder cannot be written, as on a read-only home."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        path.chmod(0o600)  # questions may be private
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


def key_bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def make_completer() -> Completer:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class CommandCompleter(Completer):
        """Commands at the start of the line, files after those that take one."""

        def __init__(self) -> None:
            self._paths = PathCompleter(expanduser=True)

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            word, space, rest = text.partition(" ")
            if space and word in TAKES_PATH:
                yield from self._paths.get_completions(Document(rest, len(rest)), complete_event)
            elif not space and text.startswith("/"):
                for command in COMMANDS:
                    if command.startswith(text):
                        end = " " if command in TAKES_PATH else ""
                        yield Completion(command + end, -len(text), display=command, display_meta=COMMANDS[command])

    return CommandCompleter()
