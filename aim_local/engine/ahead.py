"""A media item that is decoded and encoded in the background, before the question that it goes with.

It takes the model's turn for one frame at a time, so a question waits for the frame at hand at most; what is left is
done by the question itself.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from ..errors import AimError, CancelledError, UsageError
from ..media import FrameSampling
from ..models.reuse import Shared
from .intake import Intake, Prepared, Sampled, Source
from .model import Model
from .turns import Turns

_WAIT = 0.05  # seconds between two looks for a frame


class Ahead(Prepared):
    """Give it to `generate` or `ask` in the place of its path; `close()` (or `with`) when it is not wanted any more.

    What is wrong with the file is told by the question. It may be given several times, also after a question that
    failed: what is encoded stays.
    """

    def __init__(self, model: Model, turns: Turns, item: Source | Sampled, sampling: FrameSampling | None) -> None:
        if isinstance(item, Sampled):
            self._intake = Intake(model, item.source, item.sampling, Shared())
        else:
            self._intake = Intake(model, item, sampling, Shared())
        self._turns, self._closed = turns, threading.Event()
        self._thread = threading.Thread(target=self._run, name="aim-local encoder", daemon=True)
        self._thread.start()

    @property
    def source(self) -> Source:
        return self._intake.source

    @property
    def progress(self) -> tuple[int, int]:
        """Frames that are encoded, of all; (0, 0) while their number is not known."""
        intake = self._intake
        total = intake.n_frames
        return (total if intake.media is not None else min(intake.n_done, total)), total

    def wait(self, seconds: float | None = None) -> bool:
        """Until the background has nothing left to do, at most so many seconds; whether it is so."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def taken_by(self, model: Model) -> Intake:
        """For a question. Raises UsageError for one to another model, or when it was closed."""
        if self._closed.is_set():
            raise UsageError(f"{self._intake.source} was encoded ahead, and closed since; begin anew")
        if self._intake.model.tower is not model.tower:
            raise UsageError(f"{self._intake.source} was encoded ahead for another model; give its path instead")
        self._intake.begin_question()
        return self._intake

    def close(self) -> None:
        """Ends the background work, within the frame at hand; forgets what was encoded. Idempotent."""
        self._closed.set()
        self._thread.join()
        self._intake.close()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed.is_set():
            raise CancelledError("closed")

    def _run(self) -> None:
        with suppress(AimError):  # what is wrong with the file, the question finds as well; closed is closed
            self._intake.open(self._check)
            while self._step():
                self._check()

    def _step(self) -> bool:
        """One frame; False when none is left."""
        while not self._intake.is_ready:
            if self._closed.wait(_WAIT):
                return False
        with self._turns.take(self._closed.is_set) as check:
            if not self._intake.decoded(check):
                return False
            self._intake.encode()
        return True
