"""Text that others wrote, made safe to show and to write: names of files, strings of GGUF files, answers of models.

Knows characters and nothing else; where something is shown is the caller's business. A terminal acts on control
characters (it moves the cursor, sets its title, fills the clipboard), some characters turn the direction of what
follows or are seen by nobody, and a file's name may hold bytes that are not UTF-8, which Python keeps as halves of
surrogate pairs (PEP 383). The rules:

- names and messages: each such character is an escape that can be seen (`visible`), as \\x1b or \\u202e; a byte that is
  not UTF-8 is \\xff;
- answers: the text without its control characters (`answer_text`); on a terminal without what turns or hides text too;
- JSON: JSON's own escapes (`json_text`), from which `json.loads` gives the same string, and so the same file, again.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any
from unicodedata import category

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, bidi and other format characters, lone surrogates, line ends
_JOINERS = "\u200c\u200d"  # emoji, Persian and the scripts of India are written with them
_BYTES = re.compile("[\udc80-\udcff]+")  # how Python keeps bytes of a name that it could not decode
_SHELL = {"'": "\\'", "\\": "\\\\"}
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def is_visible(text: str) -> bool:
    """Whether no character of it does anything to a terminal or hides."""
    return text.isprintable() or not any(_is_unseen(c) for c in text)


def visible(text: str, keep: str = "") -> str:
    """`text` with an escape for every character that does something to a terminal, or hides. keep: those that stay."""
    if text.isprintable():  # nearly always, and quick
        return text
    return "".join(c if c in keep or not _is_unseen(c) else _escape(c) for c in rejoined(text))


def visible_lines(text: str) -> str:
    """`text` as `visible`, in the lines that it has."""
    return visible(text, keep="\n\t")


def answer_text(text: str, *, terminal: bool = False) -> str:
    """What a model said, without control characters other than line ends and tabs.

    terminal: and without what turns the direction of text or hides.
    """
    if text.isprintable():
        return text
    dropped = _UNSEEN if terminal else ("Cc", "Cs")
    return "".join(c for c in text if c in "\n\t" or (terminal and c in _JOINERS) or category(c) not in dropped)


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON that is valid UTF-8 and moves no cursor. options: json.dumps's. Raises ValueError for NaN."""
    text = json.dumps(value, **{"ensure_ascii": False, "allow_nan": False, **options})
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or not _is_unseen(c) else json.dumps(c)[1:-1] for c in text)


def shell_word(text: str) -> str:
    """A text as one word of a shell, in characters that can be seen: bash, zsh and ksh read $'...'."""
    if is_visible(text):
        return shlex.quote(text)
    parts = (_SHELL.get(c) or (_hex(c) if _is_unseen(c) else c) for c in text)
    return f"$'{''.join(parts)}'"


def _hex(c: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape" if ord(c) >= 0xDC80 else "replace"))


def rejoined(text: str) -> str:
    """`text` with the UTF-8 of undecoded bytes decoded, which a system whose language is C leaves for all letters."""
    return _BYTES.sub(
        lambda found: found[0].encode("ascii", "surrogateescape").decode("utf-8", "surrogateescape"), text
    )


def _is_unseen(c: str) -> bool:
    return category(c) in _UNSEEN


def _escape(c: str) -> str:
    if c in _NAMED:
        return _NAMED[c]
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
