"""A line of a conversation that names files: typed, or dropped on the terminal by a file manager.

Files are found at the beginning and at the end of a line: quoted, escaped, as file:// URLs, with ~, with bare blanks,
several at once. Knows text and asks whether a file is there; what is in it is found out when it is attached.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from aim_local.errors import UsageError

from . import _media

_ROOTED = re.compile(r"/|~[\w.-]*/|\.{1,2}/|file:/|[a-z]:[\\/]", re.IGNORECASE)
_ESCAPE = r"\\." if sys.platform != "win32" else r"\\"
_WORD = re.compile(rf"""(?:'[^']*'|"(?:[^"\\]|\\.)*"|{_ESCAPE}|[^\s'"\\])+(?=\s|$)""")
_ENDS = "?!.,;:)"
_MOST_WORDS = 64  # a longer line is a question, and no file is looked for behind every word of it
_AS_TEXT = "put /ask before the line to ask it as it stands"


@dataclass(frozen=True)
class Line:
    """paths: files that go with the question. question: "" where only files were given. refused: why it is neither."""

    question: str
    paths: tuple[Path, ...] = ()
    refused: str = ""


def read_line(line: str, known: Collection[Path] = ()) -> Line:
    """What a line means. known: files of the conversation; a question that ends with the name of one speaks of it."""
    text = line.strip()
    refused = _refused_url(text)
    if refused:
        return Line(text, refused=refused)
    paths, rest = _at_the_beginning(text)
    if rest and _is_missing(rest, whole=not paths):
        shown = _WORD.match(rest)
        return Line(text, refused=_missing(shown[0] if shown else rest))
    found = _at_the_end(rest, known) if rest else Line("")
    return replace(found, paths=(*paths, *found.paths))


def paths_in(text: str) -> tuple[Path, ...]:
    """The files that a text behind /video names; it may be one path with blanks. Raises UsageError for a URL."""
    paths, rest = _at_the_beginning(text.strip())
    return tuple(paths) if paths and not rest else (path_from(text.strip()),)


def path_from(text: str) -> Path:
    """A path as people type or drop it: quoted, with ~, with escaped blanks, as a file:// URL. Raises UsageError."""
    return _media.path_of(_media.unquoted(text))


# --- where files stand -----------------------------------------------------------------------------------------------


def _at_the_beginning(text: str) -> tuple[list[Path], str]:
    """The files that a text begins with, and what comes after them."""
    paths: list[Path] = []
    while text:
        path, end = next(_first(text), (None, 0))
        if path is None:
            break
        paths.append(path)
        text = text[end:].lstrip()
    return paths, text


def _first(text: str) -> Iterator[tuple[Path, int]]:
    """The file at the beginning of a text, and where it ends: the longest one, for names may have bare blanks."""
    if text.count(" ") < _MOST_WORDS:
        ends = [len(text), *(m.start() for m in re.finditer(r"\s+", text))]
        for end in sorted(ends, reverse=True):
            path = _file(text[:end])
            if path:
                yield path, end
    word = _WORD.match(text)
    if word:
        path = _file(_decoded(word[0]), quoted=word[0][0] in "'\"")
        if path:
            yield path, word.end()


def _at_the_end(text: str, known: Collection[Path]) -> Line:
    """The files that a question ends with, and the question.

    Behind a finished sentence they are dropped files; within one their names stay, for the sentence needs them.
    """
    paths: list[Path] = []
    before, tail = text, ""
    while before:
        cut = before.rstrip(_ENDS) if not paths else before
        path, start = next(_last(before), None) or next(_last(cut), (None, 0))
        if path is None or path.resolve() in known:
            break
        if not paths and not before.endswith(cut[start:]):
            tail = before[len(cut) :]
        paths.insert(0, path)
        before = before[:start].rstrip()
    if not paths:
        return Line(text)
    if before and before[-1] not in _ENDS:
        before = " ".join([before, *(path.name for path in paths)]) + tail
    return Line(before, tuple(paths))


def _last(text: str) -> Iterator[tuple[Path, int]]:
    """The file at the end of a text, and where it begins: the longest one."""
    if text[-1:] in ("'", '"'):
        start = text.rfind(text[-1], 0, -1)
        path = _file(text[start + 1 : -1], quoted=True) if start >= 0 else None
        if path and (start == 0 or text[start - 1].isspace()):
            yield path, start
    if text.count(" ") < _MOST_WORDS:
        for start in [0, *(m.end() for m in re.finditer(r"\s+", text))]:
            path = _file(text[start:]) or _file(_decoded(text[start:]))
            if path:
                yield path, start


# --- what is a file --------------------------------------------------------------------------------------------------


def _file(text: str, quoted: bool = False) -> Path | None:
    """The file that is there under a text that looks like a path."""
    if not (quoted or _ROOTED.match(text) or "/" in text or _media.has_media_suffix(text)):
        return None
    try:
        path = _media.path_of(text)
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError, UsageError):  # no name that a file could have, no such user, a URL
        return None


def _decoded(word: str) -> str:
    """Without quotes and backslashes, as a shell reads it."""
    if sys.platform == "win32":
        return _media.unquoted(word)
    try:
        parts = shlex.split(word)
    except ValueError:
        return word
    return parts[0] if len(parts) == 1 else word


def _is_missing(text: str, *, whole: bool) -> bool:
    """Whether a text begins with what can only be a path. whole: nothing stands before it."""
    word = _WORD.match(text)
    first = _decoded(word[0]) if word else text
    return bool(_ROOTED.match(first)) or (whole and word is not None and _media.has_media_suffix(first))


def _missing(word: str) -> str:
    path = path_from(_decoded(word))
    try:
        what = "is a folder: name a file in it" if path.is_dir() else "no such file"
    except OSError as e:  # such as a name that is too long to be one
        what = f"no such file ({e.strerror})"
    return f"{str(path) if len(str(path)) <= 300 else f'{str(path)[:300]}...'}: {what}; {_AS_TEXT}"


def is_file(text: str) -> bool:
    """Whether a text is a file's path as it stands; what no file can be called is none."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def _refused_url(text: str) -> str:
    """Of a line that begins with a URL, or ends with one of a media file."""
    words = text.split()
    if not words:
        return ""
    if _media.is_url(words[0]):
        return f"{_media.url_refusal(words[0])}; {_AS_TEXT}"
    if _media.is_url(words[-1]) and _media.has_media_suffix(words[-1].partition("?")[0]):
        return f"{_media.url_refusal(words[-1])}; {_AS_TEXT}"
    return ""
