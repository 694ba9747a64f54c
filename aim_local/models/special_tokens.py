"""Special tokens in the head of a language model: their numbers are among the tokens, and what prompts get has one.

llama.cpp takes a number of its own where a file gives none or a wrong one, for gpt2's kind of vocabulary an ordinary
token. Others than bos and eos have no other number, or one that nothing here uses. Converters have written numbers of
tokens that they then left out, such as a padding token behind the last one.
ref: llama.cpp, src/llama-vocab.cpp (llama_vocab::impl::load, special_token_types)
"""

from __future__ import annotations

from typing import Any

from ..store.gguf_header import ArrayInfo, GgufHeader
from .head import WHOLE, damaged
from .vocabulary import MODEL, TOKENS

_NONE = (-1, (1 << 32) - 1)  # as some converters write that there is no such token
_ADDED = ("bos", "eos")  # that a tokenizer may put in by itself
_ADDED_IDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in _ADDED)
_WITH_DEFAULTS = ("llama", "llama")  # architecture and tokenizer whose <s> and </s> have the numbers that are taken


def check_special_tokens(header: GgufHeader, n_tokens: int) -> None:
    """Raises ModelError for bos or eos that is none of the n_tokens, and for one that is added and has none.

    Another one that is none is as if it were not given (`left_out`).
    """
    for key, value in header.metadata.items():
        if _is_special(key):
            _check_number(header, key, value, n_tokens)
    for name in _ADDED:
        adds, key = f"tokenizer.ggml.add_{name}_token", f"tokenizer.ggml.{name}_token_id"
        has_one = header.metadata.get(key, -1) not in _NONE
        if header.metadata.get(adds) and not has_one and not _has_default(header):
            raise damaged(header, adds, f"there is no {key} that could be added")


def _check_number(header: GgufHeader, key: str, value: Any, n: int) -> None:
    is_one = header.kinds[key] in WHOLE and (0 <= value < n or value in _NONE)
    if not is_one and not _is_left_out(header, key, value, n):
        raise damaged(header, key, f"it has to be a token's number, 0 to {n - 1}")


def left_out(header: GgufHeader) -> list[str]:
    """Keys of special tokens whose numbers are behind the last token: llama.cpp does without them, or has its own."""
    tokens = header.metadata.get(TOKENS)
    n = tokens.length if isinstance(tokens, ArrayInfo) else 0
    return [key for key, value in header.metadata.items() if _is_special(key) and _is_left_out(header, key, value, n)]


def _is_special(key: str) -> bool:
    return key.startswith("tokenizer.ggml.") and key.endswith("_token_id")


def _is_left_out(header: GgufHeader, key: str, value: Any, n: int) -> bool:
    is_behind = header.kinds[key] in WHOLE and value >= n and value not in _NONE
    return is_behind and (_has_default(header) or key not in _ADDED_IDS)


def _has_default(header: GgufHeader) -> bool:
    return (header.architecture, header.metadata.get(MODEL)) == _WITH_DEFAULTS
