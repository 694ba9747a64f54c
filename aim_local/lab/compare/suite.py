"""Suites of questions: our JSONL form read and checked, and whatever a user names found out by its layout.

Knows the JSONL form. Published benchmarks are suites_published.py's business, the drawn demo suite demo_suite.py's;
what is asked of a model and when it is right is in questions.py. All of it can be imported from here.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from ...batch.rows import Row, read_lines
from ...errors import MediaError, SuiteError, UsageError
from ...media.files import check_file
from . import suites_published as published
from .demo_suite import SUITE_FILE, draw_demo_suite
from .questions import MAX_CHOICES, choice_letter, is_right, letters, prompt_of, sealed, text_letter
from .records import Item, Suite

__all__ = ["draw_demo_suite", "find_suite", "is_right", "letters", "load_suite", "prompt_of"]

_KEYS = ("id", "media", "question", "answer", "choices", "tags", "start", "end")
_MEDIA = "the path of a video or picture, or a list of paths, relative to the suite file"
_Numbered = tuple[int, Row, Item]


def find_suite(path: Path, media_root: Path | None = None, limit: int | None = None) -> Suite:
    """A suite from whatever the user named: our JSONL, or annotations of VideoMME or MVBench as published.

    path: the file, or a folder with suite.jsonl or with MVBench's files. media_root: where a published benchmark's
    videos are; our JSONL names its media itself. limit: only the first so many questions.
    """
    path = Path(path)
    check_limit(limit)
    if not path.exists():
        raise SuiteError(f"{path}: no such file; name a suite (JSONL), or annotations of VideoMME or MVBench")
    if path.is_dir() and (path / SUITE_FILE).is_file():
        path = path / SUITE_FILE
    load = published.loader_of(path)
    if load is None:
        if media_root is not None:
            raise UsageError(
                f"media_root {media_root} does not go with {path}: paths of a JSONL suite are relative to its file"
            )
        return load_suite(path, limit=limit)
    if media_root is None:
        raise UsageError(f"{path} is a published benchmark's file; name the folder of its videos with media_root=DIR")
    return load(path, Path(media_root), limit)


def load_suite(path: Path, *, limit: int | None = None) -> Suite:
    """Our JSONL form: one object a line with media, question and perhaps id, answer, choices, tags, start, end.

    Every line is checked; the media of the first `limit` questions have to be there. The suite is called as its
    file, or as its folder where the file is suite.jsonl.

    Raises:
        SuiteError: naming file and line, for whatever is not of this form; docs/compare.md lists the checks.
        UsageError: a limit below 1.
    """
    path = Path(path)
    check_limit(limit)
    rows = [(n, row, _item(path, n, row)) for n, row in read_lines(path)]
    if not rows:
        raise SuiteError(f"{path}: holds no question; a suite has one JSON object a line: media, question, ...")
    _check_ids(rows)
    rows = rows[:limit]
    for _, row, item in rows:
        _check_media(row, item)
    name = path.resolve().parent.name if path.name == SUITE_FILE else path.stem
    return sealed(name, [item for _, _, item in rows])


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be 1 or more questions")


def _item(path: Path, n: int, row: Row) -> Item:
    row.check_keys(_KEYS)
    choices = _choices(row)
    start, end = row.seconds("start"), row.seconds("end")
    if start is not None and end is not None and start >= end:
        raise row.fault(f"start {start:g} s is not before end {end:g} s")
    return Item(
        id=row.identity(n),
        media=_media(path, row),
        question=row.text("question", "what is asked, a text"),
        answer=_answer(row, choices),
        choices=choices,
        tags=row.texts("tags", 'a list of texts, for example ["colour"]'),
        start=start,
        end=end,
    )


def _media(path: Path, row: Row) -> tuple[Path, ...]:
    return tuple(path.parent / name for name in row.names("media", _MEDIA))


def _choices(row: Row) -> tuple[str, ...]:
    choices = row.texts("choices", "a list of texts, the first is A")
    if not row.has("choices"):
        return ()
    if not 2 <= len(choices) <= MAX_CHOICES:
        raise row.fault(f"choices has {len(choices)} texts; it must have 2 to {MAX_CHOICES}")
    for i, text in enumerate(choices):
        if text.strip() in (earlier.strip() for earlier in choices[:i]):
            raise row.fault(f"choices has {text!r} twice")
    if not row.has("answer"):
        raise row.fault("has choices without answer; give the right one's letter or text, or drop choices")
    return choices


def _answer(row: Row, choices: Sequence[str]) -> str | None:
    """The expected text; with choices, the letter of the right one, given by its letter or by its text."""
    answer = row.optional_text("answer", "a text")
    if answer is None or not choices:
        return answer
    known = string.ascii_uppercase[: len(choices)]
    as_letter = answer.strip() if len(answer.strip()) == 1 and answer.strip() in known else None
    as_text = known[choices.index(answer)] if answer in choices else None
    if as_letter and as_text and as_letter != as_text:
        full = f"{as_letter}. {choices[known.index(as_letter)]}"
        raise row.fault(f"answer {answer!r} is choice {as_letter} and the text of {as_text}; write {full!r} or such")
    letter = as_letter or as_text or choice_letter(choices, answer) or text_letter(choices, answer)
    if letter is None:
        raise row.fault(f"answer {answer!r} is none of the choices; give a letter of {', '.join(known)} or its text")
    return letter


def _check_ids(rows: Sequence[_Numbered]) -> None:
    first: dict[str, int] = {}
    for n, row, item in rows:
        if item.id in first:
            raise row.fault(
                f"id {item.id!r} is that of line {first[item.id]} too; a question without id has its line number"
            )
        first[item.id] = n


def _check_media(row: Row, item: Item) -> None:
    for file in item.media:
        try:
            check_file(file)
        except (MediaError, UsageError) as e:
            raise row.fault(f"media {e}") from e
