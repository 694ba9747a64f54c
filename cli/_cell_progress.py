"""Progress of a comparison on stderr: a bar over all questions, or a line per finished cell. Knows rich, no models."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aim_local.lab.compare.runner import Watch
from aim_local.visible import visible

from . import _log
from ._progress import QuestionBar

if TYPE_CHECKING:
    from aim_local.lab.compare.records import CellSummary


class CellProgress(Watch):
    """Progress over all questions of all cells on stderr; a line per finished cell where stderr is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = QuestionBar()
        self._wanted = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._total, self._by_cell = 0, dict[str, int]()  # questions: in all, answered or passed by cell

    @property
    def _done(self) -> int:
        return sum(self._by_cell.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._bar.stop()

    # --- what the engine calls ---

    def note(self, line: str) -> None:
        if not self._quiet:
            self._bar.above(line)

    def start(self, total: int) -> None:
        self._total = total

    def quantising(self, done: int, total: int, label: str) -> None:
        self._show(f"quantising {label}", done, total)

    def cell(self, key: str, done: int, total: int) -> None:
        self._by_cell[key] = done
        if self._wanted and done:  # from an earlier run: the estimate must not take it for speed
            bar = self._bar.shown("", None)
            bar.reset(bar.task_ids[0], total=self._total, completed=self._done, description=visible(key))
        self._show(key, self._done, self._total)

    def item(self, key: str) -> None:
        self._by_cell[key] += 1
        self._show(key, self._done, self._total)

    def finished(self, summary: CellSummary) -> None:
        self._by_cell[summary.key] = summary.n_items
        if not self._wanted and not self._quiet:
            _log.say(cell_line(summary))
        elif summary.status == "failed":
            self.note(cell_line(summary))

    # --- the bar ---

    def _show(self, label: str, done: int, total: int) -> None:
        if self._wanted:
            bar = self._bar.shown("", None)
            bar.update(bar.task_ids[0], description=visible(label), completed=done, total=total)


def cell_line(summary: CellSummary) -> str:
    """A finished cell in one line."""
    counts = f"{summary.key}: {summary.n_done} of {summary.n_items}"
    if summary.status == "failed":
        return f"{counts}, failed: {summary.reason}"
    right = f", {summary.accuracy.share:.1%} right" if summary.accuracy else ""
    kld = f", KLD {summary.divergence.mean:.2g}" if summary.divergence else ""
    return f"{counts}{right}{kld}"
