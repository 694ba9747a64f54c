"""The text that a grammar allows: whole characters, which read as llama.cpp's grammar read them.

That one counts the bytes of a character and adds up their bits, so that overlong forms, surrogates and numbers beyond
U+10FFFF pass for one. It reads special tokens as they are written, and no answer shows those.
ref: llama-grammar.cpp, decode_utf8; The Unicode Standard, table 3-7
"""

from __future__ import annotations

import codecs

from ..grammar.gbnf import names_tokens
from .llama import LlamaModel


class ConstrainedText:
    """How far it is: `begun` are the bytes of a character that the next token goes on with.

    A grammar that names tokens asks for special ones itself.
    """

    def __init__(self, model: LlamaModel, grammar: str) -> None:
        self._model, self._names_tokens = model, names_tokens(grammar)
        self.begun = b""

    def goes_on_with(self, token: int) -> bool:
        """Whether the token, which the grammar allows, leaves it a text."""
        if self._model.is_eog(token):
            return not self.begun
        piece = self._model.piece(token)
        if b"\0" in piece:  # the grammar reads what is before it
            return False
        is_read = self._names_tokens or piece == self._model.piece(token, special=True)
        return is_read and unfinished(self.begun + piece) is not None

    def add(self, token: int) -> None:
        """A token that it goes on with."""
        self.begun = unfinished(self.begun + self._model.piece(token)) or b""


def unfinished(data: bytes) -> bytes | None:
    """The bytes of the character that data ends in the middle of, b"" for none. None where data begins no UTF-8."""
    try:
        _, n_read = codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return None
    rest = data[n_read:]
    is_surrogate = rest[:1] == b"\xed" and rest[1:] >= b"\xa0"  # Python waits for its third byte
    return None if is_surrogate else rest
