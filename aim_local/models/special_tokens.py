"""Special tokens in the head of a language model: their numbers are among the tokens, and what prompts get has one.

llama.cpp takes a number of its own where a file gives none or a wrong one, for gpt2's kind of vocabulary an ordinary
token.
ref: llama.cpp, src/llama-vocab.cpp (llama_vocab::impl::load, special_token_types)
"""

from __future__ import annotations

from typing import Any

from ..store.gguf_header import GgufHeader
from .head import WHOLE, damaged
from .vocabulary import MODEL

_NONE = (-1, (1 << 32) - 1)  # as some converters write that there is no such token
_ADDED = ("bos", "eos")  # that a tokenizer may put in by itself
_WITH_DEFAULTS = ("llama", "llama")  # architecture and tokenizer whose <s> and </s> have the numbers that are taken


def check_special_tokens(header: GgufHeader, n_tokens: int) -> None:
    """Raises ModelError for a special token that is none of the n_tokens, and for one that is added and has none."""
    for key, value in header.metadata.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
            _check_number(header, key, value, n_tokens)
    for name in _ADDED:
        adds, key = f"tokenizer.ggml.add_{name}_token", f"tokenizer.ggml.{name}_token_id"
        has_one = header.metadata.get(key, -1) not in _NONE
        if header.metadata.get(adds) and not has_one and not _has_default(header):
            raise damaged(header, adds, f"there is no {key} that could be added")


def _check_number(header: GgufHeader, key: str, value: Any, n: int) -> None:
    if header.kinds[key] not in WHOLE or not (0 <= value < n or value in _NONE):
        raise damaged(header, key, f"it has to be a token's number, 0 to {n - 1}")


def _has_default(header: GgufHeader) -> bool:
    return (header.architecture, header.metadata.get(MODEL)) == _WITH_DEFAULTS
