"""A question as a model gets it, and when an answer is right. Reads no annotation file and runs no model."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...demo import is_right as same_text
from ...errors import MediaError, SuiteError
from ...media.files import digest_file
from .records import Item, Suite

MAX_CHOICES = len(string.ascii_uppercase)
_INSTRUCTION = "Answer with the option's letter."
_LETTER = re.compile(r"\(?([A-Za-z])[).:]+\s+(\S.*)", re.DOTALL)  # "B. text", "(B) text", "B: text"


def letters(item: Item) -> tuple[str, ...]:
    """The letters of an item's choices: "A", "B", ...; () without choices."""
    return tuple(string.ascii_uppercase[: len(item.choices)])


def prompt_of(item: Item) -> str:
    """What the model is asked: the question; with choices, a line for each and the instruction to name a letter."""
    if not item.choices:
        return item.question
    options = [f"{letter}. {text}" for letter, text in zip(letters(item), item.choices, strict=True)]
    return "\n".join([item.question, *options, _INSTRUCTION])


def is_right(item: Item, text: str) -> bool | None:
    """Whether `text` answers the item; None where there is no answer to compare with.

    Without choices: equal after lower case, outer punctuation and extra spaces are dropped (aim_local.demo.is_right).
    With choices: the letters are compared; `text` may be "B", "(b).", "B. its text", or the choice's text alone.
    """
    if item.answer is None:
        return None
    if item.choices:
        return choice_letter(item.choices, text) == item.answer
    return same_text(text, item.answer)


def choice_letter(choices: Sequence[str], text: str) -> str | None:
    """The letter of the choice that `text` names. A letter alone is a letter, even where it is some choice's text."""
    known = string.ascii_uppercase[: len(choices)]
    bare = text.strip(" \t\r\n.,!?:;\"'()[]").upper()
    if len(bare) == 1 and bare in known:
        return bare
    both = _LETTER.fullmatch(text.strip())
    if both and both[1].upper() in known:
        letter = both[1].upper()
        if same_text(both[2], choices[known.index(letter)]):
            return letter
    return text_letter(choices, text)


def text_letter(choices: Sequence[str], text: str) -> str | None:
    """The letter of the first choice with exactly this text; else of the first that differs in case or punctuation."""
    for same in (str.__eq__, same_text):
        for letter, choice in zip(string.ascii_uppercase, choices, strict=False):
            if same(choice, text):
                return letter
    return None


def guessing(items: Sequence[Item]) -> float | None:
    """Share of the items with an answer that is right without looking: any choice, or the free answer given most often.

    A free answer that is expected only once is no guess. None without any expected answer.
    """
    known = [item for item in items if item.answer is not None]
    if not known:
        return None
    free = Counter(" ".join(item.answer.lower().split()) for item in known if item.answer and not item.choices)
    most = max(free.values(), default=0)
    by_choice = sum(1 / len(item.choices) for item in known if item.choices)
    return (by_choice + (most if most > 1 else 0)) / len(known)


def sealed(name: str, items: Sequence[Item]) -> Suite:
    """A suite with its sha256: of ids, questions, answers, choices, tags, ranges, and the bytes of the media.

    Where the files lie and how they are called does not count. Each file is read once.
    """
    digests: dict[Path, str] = {}
    for item in items:
        for path in item.media:
            if path not in digests:
                digests[path] = _digest(item, path)
    rows = [
        [i.id, i.question, i.answer, i.choices, i.tags, i.start, i.end, [digests[path] for path in i.media]]
        for i in items
    ]
    canonical = json.dumps(rows, ensure_ascii=True, separators=(",", ":"))
    return Suite(name, tuple(items), hashlib.sha256(canonical.encode("ascii")).hexdigest())


def _digest(item: Item, path: Path) -> str:
    try:
        return digest_file(path)
    except MediaError as e:
        raise SuiteError(f"question {item.id}: {e}") from e
