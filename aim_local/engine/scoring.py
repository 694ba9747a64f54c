"""Teacher forcing: next-token logits along an answer that is given, beside the model's own answer.

One prefill serves both: while the model's own answer runs along the given one, the logits it is drawn from are those
wanted; where they part, the context goes back to the fork and takes the given tokens, one at a time as in decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..config import GenerateConfig
from ..errors import UsageError
from ..native.llama import Context, Mark
from .plan import Answer

if TYPE_CHECKING:
    from .plan import Run

Rows = NDArray[np.float32]


@dataclass
class Scored:
    """Next-token logits along n given tokens, and what the model itself answered.

    logits: float32 [n + 1, n_vocab]; row i comes after the prompt and the first i tokens of `forced`.
    forced: the n tokens. answer: as from generate, with stats, trace and warnings; forcing is not in its times.
    """

    logits: Rows = field(repr=False)
    forced: list[int]
    answer: Answer


class _Drawn:
    """Collects the logits that the own answer is drawn from, as long as it runs along `given` (None: itself)."""

    def __init__(self, context: Context, given: list[int] | None, n_max: int | None) -> None:
        self._context, self._given, self._n_max = context, given, n_max
        self._along = True
        self.rows: list[Rows] = []

    def __call__(self, token: int) -> None:
        i = len(self.rows)
        if not self._along or (self._n_max is not None and i > self._n_max):
            return
        self.rows.append(self._context.logits())
        self._along = self._given is None or (i < len(self._given) and token == self._given[i])


def score(
    run: Run,
    rendered: str,
    answer_tokens: Sequence[int] | None,
    options: GenerateConfig,
    n_own: int | None,
    start: float,
) -> Scored:
    """See VisionLLM.score. start: time.perf_counter() of the call."""
    given = None if answer_tokens is None else _checked(answer_tokens, run.llm.text.n_vocab)
    if n_own is not None and (given is not None or n_own < 0):
        raise UsageError(f"n_own is {n_own}; it is a count from 0, for a score without answer_tokens")
    n_given = len(given or ())
    with ExitStack() as stack:
        context = run.start(rendered, n_answer=max(options.max_tokens, n_given))
        stack.callback(context.close)
        mark, drawn = context.mark(), _Drawn(context, given, n_own if given is None else n_given)
        answer = run.generate(context, options, None, start, drawn)
        if run.stats.stop_reason == "interrupted":
            raise KeyboardInterrupt
        forced = answer.tokens[:n_own] if given is None else given
        logits = _follow(context, mark, drawn.rows[: len(forced) + 1], forced)
    return Scored(logits, forced, Answer(answer.text, answer.tokens, run.stats, run.trace, run.warnings))


def _follow(context: Context, mark: Mark, rows: list[Rows], forced: list[int]) -> Rows:
    """The rows that are there, and the rest: float32 [len(forced) + 1, n_vocab]. mark: the end of the prompt."""
    if len(rows) <= len(forced):
        n_known = len(rows) - 1  # tokens behind the last row; one row at least was drawn from
        fork = replace(mark, n_past=mark.n_past + n_known, n_cells=mark.n_cells + n_known)
        if context.mark() != fork:
            context.rewind(fork)
        for token in forced[n_known:]:
            context.decode_tokens([token], logits=True)
            rows.append(context.logits())
    return np.stack(rows)


def _checked(tokens: Sequence[int], n_vocab: int) -> list[int]:
    found = [int(token) for token in tokens]
    wrong = [token for token in found if not 0 <= token < n_vocab]
    if wrong:
        raise UsageError(f"answer token {wrong[0]} is not in the vocabulary; ids go from 0 to {n_vocab - 1}")
    return found
