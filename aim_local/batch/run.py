"""A run from start to end: what is left to ask, who answers it, and what is written.

Knows the order of the work. Files are answers.py's business, workers local.py's and cluster.py's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, Self

from ..native.bindings import bindings_version
from ..store import ModelPaths
from ..store.digests import known_digest
from .answers import Answers
from .clips import Seen
from .job import Outcome, Settings, error_line
from .questions import Asked, Bad, Clip, Question

Task = tuple[int, Question]


class Watch:
    """What a run reports while it runs. Every method may be overridden; these do nothing."""

    def note(self, line: str) -> None:
        """Something the user should know."""

    def start(self, total: int, done: int, earlier: int) -> None:
        """Questions will be asked, but for `done` of `total`, of which `earlier` were answered by an earlier run."""

    def ended(self, found: Outcome) -> None:
        """A question was answered, or cannot be."""

    def tick(self) -> None:
        """Nothing ended for a moment. May raise KeyboardInterrupt."""


class Workers(Protocol):
    """Who answers: processes here (local.py) or workers of a cluster (cluster.py)."""

    def first_changed(self, answered: Sequence[tuple[Sequence[Clip], Sequence[Seen]]]) -> str | None:
        """The name of the first clip that is not what was seen."""

    def answers(self, tasks: Sequence[Task]) -> Iterator[Outcome | None]:
        """Outcomes in the order in which they are there; None now and then while there is none."""

    def finished(self) -> Iterator[Outcome]:
        """Outcomes that are there and were not taken yet; does not wait."""

    @property
    def notes(self) -> list[str]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: Any) -> None: ...


@dataclass(frozen=True)
class Summary:
    """How a run ended. n_earlier: answered by an earlier run. seconds: of this one."""

    out: Path
    n_questions: int
    n_answered: int
    n_errors: int
    n_earlier: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "out": str(self.out)}


def run(
    asked: Asked,
    out: Path,
    paths: ModelPaths,
    settings: Settings,
    workers: Workers,
    *,
    again: bool = False,
    watch: Watch | None = None,
) -> Summary:
    """Answers what is not answered yet; all is in `out` and the sidecar beside it (answers.py).

    again: questions that ended in an error are asked again. A question that fails is a line with its error. Raises
    AimError for what ends a run: files of another one, a model that cannot be loaded, a cluster that is gone; and
    KeyboardInterrupt. What is done stays then, and the same call goes on from there.
    """
    start, watch = time.monotonic(), watch or Watch()
    ids = [line.id for line in asked.lines]
    with Answers(out, made_from(asked, paths, settings), ids) as answers:
        if again:
            answers.forget_errors()
        _check_clips(asked, answers, workers)
        n_earlier = len(answers.done)
        _note_bad(asked, answers)
        answers.write()
        tasks = [
            (i, line) for i, line in enumerate(asked.lines) if isinstance(line, Question) and i not in answers.done
        ]
        watch.start(len(ids), len(ids) - len(tasks), n_earlier)
        if tasks:
            with workers:
                _ask(workers, tasks, answers, watch)
        _note_kernels(answers.done.values(), watch)
        n_errors = sum(bool(found.error) for found in answers.done.values())
        return Summary(out, len(ids), len(answers.done) - n_errors, n_errors, n_earlier, time.monotonic() - start)


def _ask(workers: Workers, tasks: Sequence[Task], answers: Answers, watch: Watch) -> None:
    told = set[str]()
    try:
        for found in workers.answers(tasks):
            for note in [*workers.notes, *(found.facts.get("notes", ()) if found else ())]:
                if note not in told:
                    watch.note(note)
                told.add(note)
            if found is None:
                watch.tick()
                continue
            answers.add(found)
            watch.ended(found)
    finally:  # interrupted: what is there is written
        for found in workers.finished():
            answers.add(found)


def _note_kernels(done: Iterable[Outcome], watch: Watch) -> None:
    """Says where machines computed with different kernels: their rounding differs."""
    found = dict[str, str]()
    for one in done:
        stats = one.facts.get("stats", {})
        for name in ("vision_kernels", "prefill_kernels"):
            if stats.get(name):
                found.setdefault(f"{name.split('_')[0]} {stats[name]}", one.facts.get("host", "?"))
    if len({kernels.split(" ", 1)[0] for kernels in found}) < len(found):
        which = ", ".join(f"{kernels} on {host}" for kernels, host in found.items())
        watch.note(f"machines computed with different kernels ({which}); they round differently, see docs/scale.md")


def made_from(asked: Asked, paths: ModelPaths, settings: Settings) -> dict[str, Any]:
    """By name, everything that answers depend on but the clips, which are noted as they are read."""
    return {
        "model": model_digest(paths),
        "questions": asked.sha256,
        **settings.facts(),
        "aim-local": version("aim-local"),
        "llama-cpp-python": bindings_version(),
    }


def model_digest(paths: ModelPaths) -> list[str]:
    """sha256 of each of its files. Raises OSError."""
    return [known_digest(path) for path in paths.files]


def _check_clips(asked: Asked, answers: Answers, workers: Workers) -> None:
    """Raises AimError where a clip that was answered about is another one now."""
    pairs = [(line.clips, seen) for i, seen in answers.answered() if isinstance(line := asked.lines[i], Question)]
    changed = workers.first_changed(pairs)
    if changed is not None:
        raise answers.refusal(f"the clip {changed} changed")


def _note_bad(asked: Asked, answers: Answers) -> None:
    for i, line in enumerate(asked.lines):
        if isinstance(line, Bad) and i not in answers.done:
            answers.add(Outcome(i, error_line(line.id, line.reason), {}))
