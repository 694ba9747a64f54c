"""ANSWERS.jsonl and the sidecar beside it: what is done, in an order that no kill can break.

  ANSWERS.jsonl         a line for each question, in their order, the same bytes however the run went
  ANSWERS.jsonl.stats   first what the answers were made from; then, as questions end, their line with times and clips

The sidecar is written first, line by line to the disk; whatever is missing in ANSWERS.jsonl comes from there. So a kill
loses only what was being answered. Knows files; who answers is run.py's business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import AimError
from ..store.locks import held, lock_beside
from ..store.plain_json import fits, parsed_object, record_of
from ..visible import json_text
from .clips import Seen
from .files import append_all, append_line, cut_off, read_lines
from .job import Outcome

_MADE_FROM, _AGAIN = "made_from", "errors_again"
_BEGINS = f'{{"{_MADE_FROM}": '.encode()  # every sidecar


def stats_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.stats")


class Answers:
    """Both files, held for one run. `done`: by index, how questions ended. Use with `with`.

    made_from: by name, what answers depend on. Raises AimError where the files are of another run, or in use.
    """

    def __init__(self, out: Path, made_from: Mapping[str, Any], ids: Sequence[str]) -> None:
        self.out, self._ids = out, ids
        self.done = dict[int, Outcome]()
        _check_folder(out)
        with ExitStack() as stack:
            self._hold(stack)
            _check_place(out)
            self._stats = _opened(stats_path(out))
            stack.callback(os.close, self._stats)
            self._take_up(made_from)
            self._lines = _opened(out)
            stack.callback(os.close, self._lines)
            self._n = _count(out)  # lines that are there
            self._owned = stack.pop_all()

    def _hold(self, stack: ExitStack) -> None:
        """Raises AimError where another run has the files."""

        def busy(owner: str) -> AimError:
            return AimError(
                f"{self.out}: another run is writing it, {owner}; wait for its end, or name another file with out=FILE"
            )

        try:
            stack.enter_context(held(lock_beside(self.out), busy, stays=False))
        except OSError as e:
            raise _unwritable(self.out, e) from e

    def _take_up(self, made_from: Mapping[str, Any]) -> None:
        stats = stats_path(self.out)
        rows, cut = read_lines(stats, _object)
        self._check_record(rows, cut)
        if rows:
            self._check(rows[0].get(_MADE_FROM), made_from)
        if cut:
            cut_off(stats, cut)
        if not rows:
            append_line(stats, self._stats, {_MADE_FROM: dict(made_from)})
            return
        for row in rows[1:]:
            if row.get(_AGAIN):
                self.done = {index: found for index, found in self.done.items() if not found.error}
                continue
            found = self._outcome(row)
            self.done[found.index] = found
        self._recover()

    def _outcome(self, row: dict[str, Any]) -> Outcome:
        """Of a question of this run. Raises AimError for anything else."""
        try:
            found = record_of(Outcome, row)
        except ValueError as e:
            raise self._no_record() from e
        is_ours = 0 <= found.index < len(self._ids) and found.line.get("id") == self._ids[found.index]
        if not is_ours or not fits(found.facts.get("clips", []), list[list[int | str]]):
            raise self._no_record()
        return found

    def _check_record(self, rows: Sequence[dict[str, Any]], cut: bytes) -> None:
        """Nothing is cut from a file that is not ours; and of ours only the line that a kill left in part."""
        if not rows and not _BEGINS.startswith(cut[: len(_BEGINS)]):
            raise self._no_record()
        if b"\n" in cut:
            raise AimError(
                f"{stats_path(self.out)}: line {len(rows) + 1} is damaged, and what follows it would be lost; mend or "
                "remove that line, or name another file with out=FILE"
            )

    def _check(self, known: Any, wanted: Mapping[str, Any]) -> None:
        if not isinstance(known, dict):
            raise self._no_record()
        wanted = json.loads(json.dumps(wanted))
        changed = [name for name in {**wanted, **known} if known.get(name) != wanted.get(name)]
        if changed:
            what = ", ".join(_change(name, known.get(name), wanted.get(name)) for name in changed)
            raise self.refusal(what)

    def _no_record(self) -> AimError:
        return AimError(f"{stats_path(self.out)}: is no record of a run; name another file with out=FILE")

    def refusal(self, what: str) -> AimError:
        """That the run cannot go on where it stopped, because `what` is not as it was."""
        return AimError(
            f"{self.out}: was begun with other inputs: {what}; put that back, name another file with out=FILE, or "
            f"remove {self.out.name} and {stats_path(self.out).name} to begin anew"
        )

    def _recover(self) -> None:
        """Cuts what was written in part from ANSWERS.jsonl. Raises AimError where it holds anything else."""
        lines, cut = read_lines(self.out, lambda line: line)
        kept = 0
        for index, line in enumerate(lines):
            ours = self.done.get(index)
            if ours is None:  # of an error that is to be asked again, or ahead of a sidecar that was cut
                if _object(line) is None or index >= len(self._ids):
                    raise self._strange(index)
                break
            if line != _line(ours):
                raise self._strange(index)
            kept += len(line) + 1
        if lines or cut:
            os.truncate(self.out, kept)

    def _strange(self, index: int) -> AimError:
        return AimError(
            f"{self.out}: line {index + 1} is not what this run wrote; undo the change, or name another file "
            "with out=FILE"
        )

    def forget_errors(self) -> None:
        """Questions that ended in an error are to be asked again."""
        if any(found.error for found in self.done.values()):
            append_line(stats_path(self.out), self._stats, {_AGAIN: True})
            self.done = {index: found for index, found in self.done.items() if not found.error}
            self._recover()
            self._n = _count(self.out)

    def answered(self) -> list[tuple[int, list[Seen]]]:
        """By index, what was read of the clips of questions that are done."""
        return [(index, found.facts["clips"]) for index, found in self.done.items() if found.facts.get("clips")]

    def add(self, found: Outcome) -> None:
        """On the disk when this returns; in ANSWERS.jsonl as soon as all before it are."""
        row = {"index": found.index, "line": found.line, "facts": found.facts}
        append_line(stats_path(self.out), self._stats, row)
        self.done[found.index] = found
        self.write()

    def write(self) -> None:
        """What is done and has no gap before it is in ANSWERS.jsonl then."""
        while (found := self.done.get(self._n)) is not None:
            append_all(self.out, self._lines, _line(found) + b"\n")
            self._n += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._owned.close()


def _check_folder(out: Path) -> None:
    """Raises AimError where a run cannot write there, before anything is made."""
    if out.is_dir():
        raise AimError(f"{out}: is a folder; name a file in it with out=FILE")
    for path in (out, stats_path(out)):
        if path.exists() and not path.is_file():
            raise AimError(f"{path}: is no regular file, and a run is taken up from its file; name one with out=FILE")
    if not out.absolute().parent.is_dir():
        raise AimError(f"{out}: the folder {out.parent} does not exist; make it first, or name another with out=FILE")


def _check_place(out: Path) -> None:
    """Raises AimError for answers without the record of what they were made from."""
    stats = stats_path(out)
    if out.exists() and out.stat().st_size and not read_lines(stats, _object)[0]:
        raise AimError(
            f"{out}: is there, but not {stats.name}, which says what it was made from; move it away, or name another "
            "file with out=FILE"
        )


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as e:
        raise _unwritable(path, e) from e


def _unwritable(path: Path, e: OSError) -> AimError:
    return AimError(f"{path}: cannot be written ({e.strerror}); name another file with out=FILE")


def _line(found: Outcome) -> bytes:
    return json_text(found.line).encode()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        return parsed_object(line)
    except ValueError:
        return None


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _change(name: str, was: Any, now: Any) -> str:
    """ "max_tokens was 64 and is 32"; of long values only the name."""
    shown = ["not given" if value is None else json.dumps(value) for value in (was, now)]
    return f"{name} was {shown[0]} and is {shown[1]}" if all(len(text) <= 40 for text in shown) else f"{name} differs"
