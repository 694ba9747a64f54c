"""Reads the user's lines: with editing, history and completion on a terminal, plainly elsewhere.

Knows prompt-toolkit. What a line means is _repl.py's business.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from aim_local.bounded import bounded_line
from aim_local.errors import UsageError

from . import _log
from ._completing import complete_files, complete_media
from ._media import unquoted

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

PROMPT = "> "
_MOST_HISTORY = 8 << 20  # bytes; years of questions, read in seconds
_REFRESH = 0.5  # seconds between two looks at what is told below the prompt
COMMANDS = {
    "/video": "PATH  a clip or picture for the next question",
    "/image": "PATH  the same",
    "/ask": "TEXT  ask what looks like a path",
    "/reset": "forget the conversation",
    "/stats": "the last answer in numbers",
    "/save": "PATH  .md, .json to read, .aimchat to go on",
    "/help": "this list; also ? and help",
    "/quit": "leave; also exit, :q, Ctrl-D",
}
ALIASES = {
    **dict.fromkeys(("exit", "quit", ":q", ":quit", ":q!", ":wq", "/exit", "/q", "/bye"), "/quit"),
    **dict.fromkeys(("?", "help", ":help", "/?", "/h"), "/help"),
}
TAKES_MEDIA = ("/video", "/image")
TAKES_TEXT = (*TAKES_MEDIA, "/ask", "/save")


class Reader(Protocol):
    """Raises EOFError at the end, KeyboardInterrupt for Ctrl-C, and UsageError for a line without end."""

    def read(self) -> str: ...


def make_reader(toolbar: Callable[[], str], *, quiet: bool = False) -> Reader:
    """A line editor where stdin and stdout are terminals that can be one, else plain lines.

    toolbar: what stands below the editor, "" for nothing; asked again and again. quiet: nothing is said of a history
    that cannot be kept.
    """
    if sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return TerminalReader(toolbar=toolbar, tell=(lambda _: None) if quiet else _tell)
    return PlainReader()


def keeping_bytes(stream: TextIO) -> TextIO:
    """`stream`, whose bytes that are not text come as halves of surrogate pairs instead of ending it."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors != "surrogateescape":  # once: not after the first read
        stream.reconfigure(errors="surrogateescape")
    return stream


class PlainReader:
    """Lines of stdin; the prompt goes to stderr, so that stdout holds answers only."""

    def read(self) -> str:
        _log.prompt(PROMPT)
        try:
            line = bounded_line(keeping_bytes(sys.stdin))
        except ValueError as e:
            raise UsageError(f"stdin: {e}; ask in fewer words") from e
        if not line:
            _log.prompt("\n")
            raise EOFError
        return line


class TerminalReader:
    """prompt-toolkit's editor. `options` are its PromptSession's; tests pass an input and an output.

    tell: hears why questions are not kept.
    """

    def __init__(
        self,
        history: Path | None = None,
        toolbar: Callable[[], str] = lambda: "",
        tell: Callable[[str], None] = lambda _: None,
        **options: Any,
    ) -> None:
        from prompt_toolkit import PromptSession

        self._toolbar = toolbar
        self._session: PromptSession[str] = PromptSession(
            history=open_history(history or history_file(), tell),
            completer=make_completer(),
            complete_while_typing=False,
            reserve_space_for_menu=len(COMMANDS) + 1,
            key_bindings=key_bindings(),
            **options,
        )

    def read(self) -> str:
        self._session.bottom_toolbar = self._toolbar if self._toolbar() else None
        return self._session.prompt(PROMPT, refresh_interval=_REFRESH)


def _tell(line: str) -> None:
    _log.warn([line])


def history_file() -> Path:
    from aim_local.store.names import state_folder

    return state_folder() / "history"


def open_history(path: Path, tell: Callable[[str], None] = lambda _: None) -> History:
    """The history in `path`; one in memory where that cannot be, as on a read-only home. tell: hears why."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from aim_local.store.names import make_folder

    try:
        if path.resolve() == Path(os.devnull):  # as people do who want none
            return InMemoryHistory()
        make_folder(path.parent)
        _check_history(path)
        with path.open("ab"):
            pass
        path.chmod(0o600)  # questions may be private
    except (OSError, RuntimeError) as e:  # the latter for a link to itself
        tell(f"{path}: questions are not kept for the next time ({getattr(e, 'strerror', None) or e})")
        return InMemoryHistory()
    return FileHistory(str(path))


def _check_history(path: Path) -> None:
    """Raises OSError for what is no file, which may never end, or is too large to be read before the first prompt."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    if path.exists() and path.stat().st_size > _MOST_HISTORY:
        raise OSError(errno.EFBIG, f"it has more than {_MOST_HISTORY >> 20} MiB; remove it")


def key_bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def make_completer() -> Completer:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document

    class LineCompleter(Completer):
        """Commands at the start of the line; media files and folders behind what takes one, and as the last word."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            word, space, rest = text.partition(" ")
            if not space and text.startswith("/"):
                found = [command for command in COMMANDS if command.startswith(text)]
                for command in found:
                    end = " " if command in TAKES_TEXT else ""
                    yield Completion(command + end, -len(text), display=command, display_meta=COMMANDS[command])
                if found:
                    return
            places = [rest] if space and word in (*TAKES_MEDIA, "/save") else []
            find = complete_files if word == "/save" else complete_media
            yield from _paths([*places, _last_word(text)], find)

    return LineCompleter()


def _paths(places: Sequence[str], find: Callable[[str], list[str]]) -> Iterator[Completion]:
    """What goes on from the first of the texts that anything goes on from."""
    from prompt_toolkit.completion import Completion

    for typed in places:
        quote = typed[:1] if typed[:1] in ("'", '"') else ""
        found = find(typed[1:] if quote else unquoted(typed))
        for path in found:
            folder = path.endswith("/")
            whole = f"{quote}{path}{'' if folder else quote}" if quote else _escaped(path)
            yield Completion(whole, -len(typed), display=path.rstrip("/").rpartition("/")[2] + "/" * folder)
        if found:
            return


def _last_word(text: str) -> str:
    """What stands behind the last blank that is neither escaped nor quoted."""
    found = re.search(r"""(?:^|(?<=\s))(?:'[^']*|"[^"]*|(?:\\.|[^\s'"\\])*)$""", text)
    return found[0] if found else ""


def _escaped(path: str) -> str:
    """A path as one word of a line."""
    if sys.platform == "win32":
        return f'"{path}"' if " " in path else path
    return re.sub(r"([\s'\"\\])", r"\\\1", path)
