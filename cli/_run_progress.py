"""Progress of a run on stderr: a bar with the time left, or a line now and then. Knows rich, no models."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aim_local.batch.run import Watch

from . import _log
from ._interrupt import Interrupts
from ._option_names import in_options
from ._progress import QuestionBar

if TYPE_CHECKING:
    from aim_local.batch.job import Outcome

_BETWEEN = 30.0  # seconds between two lines where stderr is no terminal


class RunProgress(Watch):
    """A bar on stderr; where that is no terminal, a line every half minute. Ctrl-C is raised where it does no harm."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._wanted = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._bar = QuestionBar()
        self._interrupts = Interrupts()
        self._total = self._done = self._errors = self._earlier = 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._interrupts.__exit__(kind, e, trace)
        self.stop()

    def stop(self) -> None:
        self._bar.stop()

    # --- what the run calls ---

    def note(self, line: str) -> None:
        if not self._quiet:
            self._bar.above(f"note: {line}")

    def start(self, total: int, done: int, earlier: int) -> None:
        self._total, self._done, self._earlier = total, done, done
        self._began = self._told = time.monotonic()
        if earlier and done < total:
            self.note(f"{earlier} of {total} were answered before; going on with the others")
        if done > earlier:
            self.note(f"{done - earlier} of {total} lines cannot be asked; each is an error in the answers")
        if self._wanted and done < total:
            self._show()

    def ended(self, found: Outcome) -> None:
        self._done += 1
        if found.error:
            self._errors += 1
            if not self._quiet:
                self._bar.above(in_options(f"{found.line['id']}: {found.error}"))
        if self._wanted:
            self._show()
        self.tick()

    def tick(self) -> None:
        self._interrupts.check()
        now = time.monotonic()
        if not self._wanted and not self._quiet and now - self._told >= _BETWEEN:
            self._told = now
            _log.say(self._line(now - self._began))

    # --- how it is shown ---

    def _show(self) -> None:
        bar = self._bar.shown("answering", self._total, self._done)
        bar.update(bar.task_ids[0], completed=self._done)

    def _line(self, seconds: float) -> str:
        new = self._done - self._earlier
        left = f", about {_time(seconds / new * (self._total - self._done))} left" if new else ""
        errors = f", {self._errors} with an error" if self._errors else ""
        return f"{self._done} of {self._total} done{errors}{left}"


def _time(seconds: float) -> str:
    """For people: 40 s, 12 min, 3.5 h."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
