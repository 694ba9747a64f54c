"""One question asked twice, with all visual tokens and with fewer, and the bundled clips' questions as a check.

Knows a loaded model and what it reports while it works. How that is shown is screen.py's business.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import GenerateConfig, LoadConfig, VisualTokenConfig
from ..llm import VisionLLM
from ..results import Answer
from .clips import is_right

LOAD = LoadConfig(cache_media=False)  # both sides encode the clip: neither takes it from the disk
GENERATE = GenerateConfig(max_tokens=8)  # room for an answer is part of the KV cache, and these are short


@dataclass(frozen=True)
class Case:
    """A clip with a question and what is right."""

    clip: Path
    question: str
    expected: str


@dataclass(frozen=True)
class Checked:
    case: Case
    text: str

    @property
    def is_right(self) -> bool:
        return is_right(self.text, self.case.expected)


@dataclass(frozen=True)
class Side:
    """One way to ask, and what is known of it so far.

    setting: as on the command line. stage: what the model is at, done of total steps; "" before and after.
    elapsed_ms: since the call. text: the answer as it streams. answer: once it is there.
    """

    name: str
    setting: str
    tokens: VisualTokenConfig
    has_begun: bool = False
    stage: str = ""
    done: int = 0
    total: int = 0
    elapsed_ms: float = 0.0
    text: str = ""
    answer: Answer | None = None


def both_sides() -> tuple[Side, Side]:
    return (
        Side("all visual tokens", "--tokens off", VisualTokenConfig.off()),
        Side("reduced", "--tokens paper", VisualTokenConfig.paper()),
    )


def bundled_cases(folder: Path) -> list[Case]:
    """The clips that come with the package; the first one is the demo's."""
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    return [Case(folder / row["clip"], row["question"], row["answer"]) for row in rows]


def check(llm: VisionLLM, cases: Sequence[Case]) -> list[Checked]:
    """Every case through the whole path, with all visual tokens. Raises KeyboardInterrupt after Ctrl-C."""
    tokens = VisualTokenConfig.off()
    return [Checked(case, whole(llm.generate(case.question, [case.clip], tokens, GENERATE)).text) for case in cases]


def whole(answer: Answer) -> Answer:
    """The answer; KeyboardInterrupt where Ctrl-C cut it short."""
    if answer.stats.stop_reason == "interrupted":
        raise KeyboardInterrupt
    return answer


def ask(llm: VisionLLM, case: Case, side: Side, show: Callable[[Side], None]) -> Side:
    """The side with its answer. show: called with what is known, often; what takes its time there is measured, too."""
    run = _Run(side, show)
    answer = whole(
        llm.generate(
            case.question, [case.clip], side.tokens, GENERATE,
            on_text=run.on_text, progress=run.progress, should_stop=run.should_stop,
        )
    )  # fmt: skip
    return run.finished(answer)


class _Run:
    """A side in the making: what the library calls while it works."""

    def __init__(self, side: Side, show: Callable[[Side], None]) -> None:
        self._side, self._show = replace(side, has_begun=True), show
        self._begin = time.perf_counter()
        show(self._side)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._news(replace(self._side, stage=stage, done=done, total=total))

    def should_stop(self) -> bool:
        """Asked about every 50 ms while native code computes: time goes on. Never stops."""
        self._news(self._side)
        return False

    def on_text(self, piece: str) -> None:
        self._news(replace(self._side, text=self._side.text + piece, stage="answer"))

    def finished(self, answer: Answer) -> Side:
        self._news(replace(self._side, text=answer.text, answer=answer, stage=""))
        return self._side

    def _news(self, side: Side) -> None:
        # the time of the first token stands still from then on: the clock's until the model's own is there
        ms = side.elapsed_ms if side.text and self._side.text else 1000 * (time.perf_counter() - self._begin)
        self._side = replace(side, elapsed_ms=side.answer.stats.ttft_ms if side.answer else ms)
        self._show(self._side)
