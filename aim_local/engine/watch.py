"""Who looks on while a prompt runs: progress goes out, and a wish to stop comes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, int, int], None]  # (stage, done, total), stage is "decode_video", "vision" or "prefill"


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """check: raises what the work shall end with; called between steps."""

    progress: Progress | None = None
    check: Callable[[], None] = _nothing

    def step(self, stage: str, done: int, total: int) -> None:
        """After a step of the work."""
        self.check()
        if self.progress:
            self.progress(stage, done, total)

    def stage(self, stage: str) -> Callable[[int, int], None]:
        """`step` of one stage."""
        return lambda done, total: self.step(stage, done, total)
