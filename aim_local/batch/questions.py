"""A file of questions for `run`: JSON lines read and checked, every line that cannot be asked with its reason.

Knows the form of a line. What holds for questions that say nothing themselves is in job.py. Loads no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from ..errors import AimError, MediaBudgetError, SuiteError, UsageError
from ..media.types import PICKS, Pick
from ..settings import parse_setting
from .rows import Row, as_row, numbered, parse

KINDS = ("media", "video", "image")
_KEYS = ("id", *KINDS, "question", "frames", "fps", "start", "end", "pick", "tokens", "max_tokens", "system")
_NEEDED = {
    "media": "the path of a video or picture, or a list of paths, relative to the file of questions",
    "video": "the path of a video, or a list of paths, relative to the file of questions",
    "image": "the path of a picture, or a list of paths, relative to the file of questions",
}
_OF_COMPARE = {key: f"{key} is for suites of `compare`" for key in ("answer", "choices", "tags")}


@dataclass(frozen=True)
class Clip:
    """A media file of a question. name: as the line has it; path: absolute. kind: one of KINDS, what it is called."""

    kind: str
    name: str
    path: str


@dataclass(frozen=True)
class Question:
    """One line, the n-th of its file. None: as for all questions (job.Settings).

    tokens: text form of settings.parse_setting. start, end: seconds. pick: as in FrameSampling.
    """

    n: int
    id: str
    clips: tuple[Clip, ...]
    question: str
    frames: int | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    tokens: str | None = None
    max_tokens: int | None = None
    system: str | None = None
    pick: Pick | None = None


@dataclass(frozen=True)
class Bad:
    """A line that cannot be asked, and why."""

    id: str
    reason: str

    @classmethod
    def of(cls, name: str, why: str) -> Self:
        """why: becomes one line of a length that can be read, whatever it quotes."""
        return cls(name, str(SuiteError(why)))


@dataclass(frozen=True)
class Asked:
    """A file of questions in its order. name: of the file."""

    name: str
    lines: tuple[Question | Bad, ...]

    @property
    def bad(self) -> list[Bad]:
        return [line for line in self.lines if isinstance(line, Bad)]

    @property
    def sha256(self) -> str:
        """Of the questions and the names of their clips, wherever the file lies."""
        plain = [_plain(line) for line in self.lines]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class BadQuestionsError(SuiteError):
    """Lines that cannot be asked; `lines` has one reason each."""

    def __init__(self, path: Path, lines: Sequence[str], n: int) -> None:
        which = f"{len(lines)} of {n} lines" if n > 1 else "its line"
        super().__init__(f"{path}: {which} cannot be asked; correct what is named above, or leave it out")
        self.lines = tuple(lines)


def read_questions(path: Path) -> Asked:
    """The lines of a file of questions; media are not looked at, see check_clips.

    Raises SuiteError where the file cannot be read or has no line.
    """
    found = list[Question | Bad]()
    first = dict[str, int]()
    for n, where, text in numbered(path):
        line = _line(path, n, where, text)
        if isinstance(line, Question) and line.id in first:
            line = Bad.of(line.id, f"line {n}: id {line.id!r} is that of line {first[line.id]} too")
        if isinstance(line, Question):
            first[line.id] = n
        found.append(line)
    if not found:
        raise SuiteError(f"{path}: holds no question; it has one JSON object a line: video or image, question, ...")
    return Asked(path.name, tuple(found))


def check_clips(asked: Asked) -> Asked:
    """With lines whose media cannot be read as bad ones."""
    return Asked(asked.name, tuple(_looked_at(line) for line in asked.lines))


def refuse_bad(path: Path, asked: Asked) -> None:
    """Raises BadQuestionsError where there are any bad lines."""
    if asked.bad:
        raise BadQuestionsError(path, [line.reason for line in asked.bad], len(asked.lines))


def _line(path: Path, n: int, where: str, text: str) -> Question | Bad:
    name = str(n)
    try:
        row = as_row(where, parse(where, text))
        name = row.identity(n)
        return _question(path, n, row, name)
    except SuiteError as e:
        return Bad(name, str(e).removeprefix(f"{path} "))


def _question(path: Path, n: int, row: Row, name: str) -> Question:
    row.check_keys(_KEYS, _OF_COMPARE)
    start, end = row.seconds("start"), row.seconds("end")
    if start is not None and end is not None and start >= end:
        raise row.fault(f"start {start:g} s is not before end {end:g} s")
    tokens = row.optional_text("tokens", "a setting of visual tokens, such as paper or off")
    if tokens is not None:
        try:
            parse_setting(tokens)
        except UsageError as e:
            raise row.fault(f"tokens: {e}") from e
    return Question(
        n=n,
        id=name,
        clips=_clips(path, row),
        question=row.text("question", "what is asked, a text"),
        frames=row.count("frames", "how many frames of a video are read"),
        fps=row.rate("fps", "frames per second of video"),
        start=start,
        end=end,
        tokens=tokens,
        max_tokens=row.count("max_tokens", "the longest answer in tokens"),
        system=row.optional_text("system", "the system prompt, a text"),
        pick=_pick(row),
    )


def _pick(row: Row) -> Pick | None:
    found = row.optional_text("pick", f"how frames are spread: {', '.join(PICKS)}")
    if found is not None and found not in PICKS:
        raise row.fault(f"pick is {found!r}; it must be {', '.join(PICKS[:-1])} or {PICKS[-1]}")
    return cast("Pick | None", found)


def _clips(path: Path, row: Row) -> tuple[Clip, ...]:
    if row.has("media") and (row.has("video") or row.has("image")):
        raise row.fault("has media beside video or image; media takes both, give that alone")
    given = [kind for kind in KINDS if row.has(kind)]
    if not given:
        raise row.fault(f"has no video and no image; it needs {_NEEDED['video']}")
    names = [(kind, name) for kind in given for name in row.names(kind, _NEEDED[kind])]
    return tuple(Clip(kind, name, str((path.parent / name).absolute())) for kind, name in names)


def _looked_at(line: Question | Bad) -> Question | Bad:
    if isinstance(line, Bad):
        return line
    problem = clip_problem(line.clips)
    return Bad.of(line.id, f"line {line.n}: {problem}") if problem else line


def clip_problem(clips: Sequence[Clip]) -> str:
    """Why one of them cannot be read, "" where all can. Whether it is a video or a picture, its content tells."""
    from ..media.files import check_file
    from ..media.pictures import picture_kind
    from ..media.reader import probe_video

    for clip in clips:
        try:
            if not Path(clip.path).exists():  # the check's own message names this process's folder
                return f"{clip.kind} {clip.name}: no such file; check the name and the folder"
        except OSError as e:  # a name that is too long, a folder that may not be read
            return f"{clip.kind} {clip.name:.200}: cannot be read ({e.strerror}); check the name and permissions"
        try:
            path = check_file(clip.path)
            if clip.kind == "image" and picture_kind(path) is None:
                probe_video(path)  # a clip, then, which is as good; else its error is the right one
        except MediaBudgetError:
            continue  # told by the answer: how much is allowed is the model's option
        except AimError as e:
            return f"{clip.kind} {as_written(str(e), clips)}"
    return ""


def as_written(text: str, clips: Sequence[Clip]) -> str:
    """A message with the clips' names as the line has them: it reads the same wherever the folder lies."""
    for clip in sorted(clips, key=lambda clip: -len(clip.path)):
        text = text.replace(clip.path, clip.name)
    return text


def _plain(line: Question | Bad) -> dict[str, Any]:
    if isinstance(line, Bad):
        return {"id": line.id, "bad": True}
    plain: dict[str, Any] = {**line.__dict__, "clips": [[clip.kind, clip.name] for clip in line.clips]}
    del plain["n"]
    return plain
