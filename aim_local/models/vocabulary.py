"""What a language model's vocabulary says of itself: types of tokens, and merges, which name tokens that are there.

llama.cpp takes them as they come: a merge of tokens that are not there splits texts at other places, and a token of an
unknown type is left out of answers. The sizes of these arrays are text_head.py's affair.
ref: llama.cpp, src/llama-vocab.cpp (llama_vocab::impl::load, token_to_piece) and include/llama.h (llama_token_type)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..errors import ModelError
from ..store.gguf_header import GgufHeader, read_numbers, read_texts
from .head import CURE

MODEL, TOKENS, TYPES = (f"tokenizer.ggml.{what}" for what in ("model", "tokens", "token_type"))
SPLITS = "tokenizer.ggml.pre"  # of gpt2's kind of vocabulary
SCORES, MERGES = (f"tokenizer.ggml.{what}" for what in ("scores", "merges"))
WITHOUT = ("none", "no_vocab")  # tokenizers that have no vocabulary
_TYPES = range(1, 7)  # normal, unknown, control, user-defined, unused, byte
_NORMAL, _BYTE = 1, 6
_TEXT = frozenset({_NORMAL, 4, _BYTE})  # what answers are made of
_BY_BYTES = ("llama", "gemma4")  # tokenizers that have a token for each byte of what no other token has
_BYTES = re.compile(rb"<0x[0-9A-Fa-f]{2}>")


def check_vocabulary(header: GgufHeader) -> None:
    """Raises ModelError. Behind `check_text_head`; takes about a second for 250,000 tokens."""
    model = header.metadata.get(MODEL)
    if model in WITHOUT:
        return
    try:
        tokens, types, scores = read_texts(header, TOKENS), read_numbers(header, TYPES), read_numbers(header, SCORES)
        merges = read_texts(header, MERGES)
    except OSError as e:
        raise ModelError(f"{header.path}: cannot be read ({e.strerror}); check its permissions") from e
    for i, score in enumerate(scores):
        if not math.isfinite(score):
            raise _damaged(header, SCORES, i, f"{score}", "a number")
    _check_types(header, tokens, types, by_bytes=model in _BY_BYTES)
    if MERGES in header.metadata and model != "llama":  # which goes by scores
        _check_merges(header, tokens, merges)
        _check_made(header, tokens, types, merges)


def _check_types(header: GgufHeader, tokens: Sequence[bytes], types: Sequence[float], *, by_bytes: bool) -> None:
    """A type for each token that there is one of; a token of the type byte is the text of one; some are text."""
    if types and _TEXT.isdisjoint(types):
        raise ModelError(f"{header.path}: {TYPES} has no token that writes text. {CURE}")
    for i, (token, kind) in enumerate(zip(tokens, types, strict=False)):
        if kind not in _TYPES:
            raise _damaged(header, TYPES, i, f"{kind}", f"{_TYPES[0]} to {_TYPES[-1]}")
        is_byte = _BYTES.fullmatch(token) is not None
        if (kind == _BYTE and not is_byte) or (is_byte and by_bytes and kind != _BYTE):
            allowed = f"{_BYTE} (byte)" if is_byte else f"another one than {_BYTE}"
            raise _damaged(header, TYPES, i, f"{kind}", f"{allowed}, as the token is {_shown(token)}")


def _check_merges(header: GgufHeader, tokens: Sequence[bytes], merges: Sequence[bytes]) -> None:
    """Two tokens with a space between, which make a third one."""
    known = set(tokens)
    for i, merge in enumerate(merges):
        space = merge.find(b" ", 1)
        first, second = merge[:space], merge[space + 1 :]
        if space < 0:
            raise _damaged(header, MERGES, i, _shown(merge), "two tokens with a space between")
        if first not in known or second not in known or first + second not in known:
            missing = next(part for part in (first, second, first + second) if part not in known)
            raise _damaged(header, MERGES, i, _shown(merge), f"of tokens that are there: {_shown(missing)} is none")


def _check_made(header: GgufHeader, tokens: Sequence[bytes], types: Sequence[float], merges: Sequence[bytes]) -> None:
    """Tokens of several characters come of merges; in real vocabularies up to 3 % do not, which were put in later."""
    made = {merge.replace(b" ", b"") for merge in merges}
    normal = [token for token, kind in zip(tokens, types, strict=False) if kind == _NORMAL]
    long = [token for token in normal if len(token.decode(errors="replace")) > 1]
    n_made = sum(token in made for token in long)
    if n_made < len(long) / 2:
        raise ModelError(f"{header.path}: {MERGES} make {n_made} of {len(long)} tokens that need one. {CURE}")


def _shown(text: bytes) -> str:
    return f"{text.decode(errors='replace')!a:.60}"


def _damaged(header: GgufHeader, key: str, i: int, found: str, needed: str) -> ModelError:
    return ModelError(f"{header.path}: {key}[{i}] is {found}; it has to be {needed}. {CURE}")
