"""The text of a grammar (GBNF), before llama.cpp's parser: that calls itself, and writes out what is repeated."""

from __future__ import annotations

import re

from ..errors import UsageError
from .text_rules import escaped

MAX_GRAMMAR, MAX_NESTING, MAX_REPEATED = 1 << 20, 200, 1 << 20
_PARSER_REPEATS = 2000  # an item at most, in all repetitions behind it together
_COUNT = re.compile(r"\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}")
# a text, a class, a comment, a repetition, a parenthesis, or any other character
_PART = re.compile(
    r'(?P<item>"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\])|(?P<comment>#[^\n]*)|(?P<count>\{[^}]*\})|(?P<other>\S)', re.S
)


def check_text(grammar: str) -> None:
    """Raises UsageError for what would take the parser too much memory or stack, or what it would never end with."""
    if grammar.startswith("\ufeff"):
        raise UsageError("the grammar begins with a byte order mark; read its file as utf-8-sig, or leave it out")
    if len(grammar) > MAX_GRAMMAR:
        raise UsageError(f"the grammar has {len(grammar)} characters; give at most {MAX_GRAMMAR}")
    strange = next((c for c in grammar if not c.isprintable() and c not in "\n\r\t"), None)
    if strange is not None:
        raise UsageError(f"the grammar has the control character {strange!r}; write it as {escaped(ord(strange))}")
    depth = deepest = n_repeated = 0
    n_item = n_times = 1  # of what a repetition would repeat
    for part in _PART.finditer(grammar):
        if part["count"]:
            n_times = min(n_times * _times(part["count"]), _PARSER_REPEATS)
            n_repeated += n_item * n_times
        elif not part["comment"]:
            n_item, n_times = len(part[0]), 1
            depth += (part[0] == "(") - (part[0] == ")")
            deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise UsageError(f"the grammar is {deepest} parentheses deep; give at most {MAX_NESTING}")
    if n_repeated > MAX_REPEATED:
        raise UsageError(f"the grammar's repetitions are {n_repeated} characters long; give at most {MAX_REPEATED}")


def names_tokens(grammar: str) -> bool:
    """Whether it asks for tokens, <[3]> or <|im_end|>, beside texts."""
    return any(part["other"] == "<" for part in _PART.finditer(grammar))


def _times(count: str) -> int:
    """The larger number of {3}, {3,} or {3,5}; 1 for what the parser refuses."""
    found = _COUNT.fullmatch(count)
    if not found:
        return 1
    low, high = (int(n[:8] or 0) for n in (found[1], found[3] or ""))
    if found[3] and high < low:
        raise UsageError(f"the grammar repeats something at least {low} and at most {high} times: {count}")
    return max(low, high, 1)
