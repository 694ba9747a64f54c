"""Progress bars on stderr, one per stage, gone when the answer begins. Silent where stderr is no terminal.

Knows rich and the names of the stages. The work reports by calling the object: `bars(stage, done, total)`.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import _log

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LABELS = {"decode_video": "reading video", "vision": "vision encoder", "prefill": "prefill"}


class Bars:
    """A context manager; `wanted=False` makes every call a no-op."""

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._wanted:
            return
        progress = self._progress or self._start()
        task = self._tasks.get(stage)
        if task is None or (done == 0 and progress.tasks[task].finished):
            self._tasks[stage] = task = progress.add_task(LABELS.get(stage, stage), total=total or None)
        progress.update(task, completed=done, total=total or None)

    def stop(self) -> None:
        """Take the bars off the screen; a later call starts new ones."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}

    def _start(self) -> Progress:
        self._progress = make_progress()
        self._progress.start()
        return self._progress


def make_progress(*columns: Any) -> Progress:
    """A bar with count and time on stderr that disappears when it stops."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        *(columns or (MofNCompleteColumn(),)),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class ByteBar:
    """Progress of a conversion: `bar(done, total, name)`. `unit` "bytes" or "tensors"."""

    def __init__(self, label: str, unit: str, wanted: bool = True) -> None:
        self._label, self._unit = label, unit
        self._wanted = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, done: int, total: int, name: str) -> None:
        if not self._wanted:
            return
        progress = self._progress or self._start(total)
        progress.update(progress.task_ids[0], completed=done, total=total)

    def _start(self, total: int) -> Progress:
        from rich.progress import DownloadColumn, TransferSpeedColumn

        columns = (DownloadColumn(), TransferSpeedColumn()) if self._unit == "bytes" else ()
        self._progress = make_progress(*columns)
        self._progress.add_task(self._label, total=total)
        self._progress.start()
        return self._progress


class QuestionBar:
    """A bar over questions on stderr with the time left, made when it is first asked for; lines go above it."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def shown(self, label: str, total: int | None, done: int = 0) -> Progress:
        """The bar; what is given is for its beginning."""
        if self._progress is None:
            from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

            self._progress = make_progress(MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left, after"))
            self._progress.add_task(label, total=total, completed=done)
            self._progress.start()
        return self._progress

    def above(self, line: str) -> None:
        """A line above the bar, or alone."""
        if self._progress is not None:
            self._progress.console.print(_log.one_line(line), markup=False, highlight=False)
        else:
            _log.say(line)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
