"""Bytes that stand in a request: base64, or percent-encoded text, decoded piece by piece into a file.

Knows both codes, strictly. Leaves to others: where the text stood, and what the bytes are.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote_to_bytes

from ..failures import RequestError
from .landing import Landing
from .references import Inline
from .words import shown

_CHUNK = 4 * 2**16  # characters, a multiple of 4: base64 is decoded in groups of them
_WRONG = re.compile(r"[^A-Za-z0-9+/]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def save_inline(inline: Inline, landing: Landing, check: Callable[[], None]) -> None:
    """Decodes into `landing`. Raises RequestError: what is too large before it is decoded. check: raises to stop."""
    for data in _from_base64(inline, landing) if inline.is_base64 else _from_percent(inline):
        check()
        landing.write(data)


def _from_base64(inline: Inline, landing: Landing) -> Iterator[bytes]:
    n_chars = inline.end - inline.start
    padding = inline.text[max(inline.start, inline.end - 2) : inline.end].count("=")
    landing.expect(max(0, -(-n_chars // 4) * 3 - padding))
    for start in range(inline.start, inline.end, _CHUNK):
        end = min(start + _CHUNK, inline.end)
        chunk = inline.text[start:end]
        is_last = end == inline.end
        if wrong := _WRONG.search(chunk.rstrip("=") if is_last else chunk):
            raise _bad(f"holds {shown(wrong[0])} at character {start - inline.start + wrong.start()}")
        try:
            yield binascii.a2b_base64(chunk, strict_mode=True)
        except binascii.Error as e:
            raise _bad(f"has {n_chars} characters and {padding} '=' at its end, so it was cut off") from e


def _from_percent(inline: Inline) -> Iterator[bytes]:
    start = inline.start
    while start < inline.end:
        end = min(start + _CHUNK, inline.end)
        if end < inline.end:  # no escape is cut in two
            cut = inline.text.rfind("%", end - 2, end)
            end = cut if cut > start else end
        chunk = inline.text[start:end]
        if not chunk.isascii() or _BAD_ESCAPE.search(chunk):
            raise RequestError(400, "a data: URL holds what is not percent-encoded; use base64", code="bad_url")
        yield unquote_to_bytes(chunk)
        start = end


def _bad(what: str) -> RequestError:
    hint = "give base64 of the alphabet A-Z a-z 0-9 + / with its '=', in one line (base64 -w0), or a URL"
    return RequestError(400, f"the base64 {what}; {hint}", code="bad_base64")
