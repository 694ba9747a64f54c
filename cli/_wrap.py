"""Lines that break between words: of an answer as it streams to a terminal, and of messages.

Knows how wide characters are, and where a line may break: at blanks, and beside the wide characters of Chinese,
Japanese and Korean. What is piped is not wrapped; that is for the callers to know.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TextIO
from unicodedata import category

_NEVER_FIRST = ("Pe", "Pf", "Po", "Lm", "Mn", "Cf")  # Unicode's categories: what closes, ends or lengthens
_NEVER_LAST = ("Ps", "Pi")  # what opens
_GLUE = "\u00a0"  # a blank where no line breaks
_LEAST = 8  # columns; a terminal that says less is not believed


def cells(text: str) -> int:
    """Columns that a text takes on a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def columns(stream: TextIO | None) -> int:
    """How wide the terminal behind a stream is now."""
    try:
        found = os.get_terminal_size(stream.fileno()).columns if stream is not None else 0
    except (OSError, ValueError):
        found = 0
    return max(_LEAST, found or shutil.get_terminal_size().columns)


class Wrapper:
    """Takes text piece by piece, and gives it on word by word, with line breaks where a word would not fit.

    width: asked at every word, so a terminal may change its size. A word that is wider than a line breaks anywhere.
    """

    def __init__(self, write: Callable[[str], None], width: Callable[[], int]) -> None:
        self._write, self._width = write, width
        self._column = 0  # where the cursor stands
        self._blanks = self._word = ""  # what came and is not written yet

    def feed(self, text: str) -> None:
        for c in text:
            if c == "\n":
                self._end_word()
                self._blanks, self._column = "", 0
                self._write(c)
            elif c.isspace() and c != "\u00a0":
                self._end_word()
                self._blanks += c
            else:
                if self._word and _may_break(self._word[-1], c):
                    self._end_word()
                self._word += c
                if cells(self._word) >= self._width():
                    self._end_word()

    def finish(self) -> None:
        """Writes what is left of the last word."""
        self._end_word()

    def _end_word(self) -> None:
        word, self._word = self._word, ""
        if not word:
            return
        width = self._width()
        if self._column > width:  # the terminal is narrower now, and has broken the line itself
            self._column %= width
        blanks, self._blanks = self._blanks.expandtabs(), ""
        if self._column + len(blanks) + cells(word) > width and self._column:
            self._write("\n")
            self._column, blanks = 0, ""
        self._put(blanks + word, width)

    def _put(self, text: str, width: int) -> None:
        line, start = "", self._column
        for c in text:
            if self._column + cells(c) > width:
                line, self._column = f"{line}\n", 0
            line += c
            self._column += cells(c)
        if "\n" not in line:  # a cluster such as a flag is as wide as the whole of it, not as its parts
            self._column = start + cells(line)
        self._write(line)


def _may_break(before: str, after: str) -> bool:
    """Whether a line may break between two characters without a blank between them."""
    if cells(before) < 2 and cells(after) < 2:
        return False
    return category(after) not in _NEVER_FIRST and category(before) not in _NEVER_LAST and before != "\u200d"


def filled(text: str, width: int, indent: str = "") -> str:
    """A text in lines of at most `width` columns; those after the first begin with `indent`. Long words stay whole.

    Parts between bars stay whole where they can: a line breaks before " | ", then between words.
    """
    parts = text.split(" | ")
    if len(parts) > 1:
        whole = [part.replace(" ", _GLUE) if cells(f"{indent}| {part}") <= width else part for part in parts]
        text = f" |{_GLUE}".join(whole)
    lines, line = list[str](), ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line.strip() and cells(longer) > width:
            lines.append(line)
            longer = indent + word
        line = longer
    return "\n".join([*lines, line]).replace(_GLUE, " ")
