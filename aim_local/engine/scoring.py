"""Teacher forcing: next-token logits along an answer that is given, beside the model's own answer.

One prefill serves both: while the model's own answer runs along the given one, the logits it is drawn from are those
wanted; where they part, the context goes back to the fork and takes the given tokens, one at a time as in decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..arguments import several, whole
from ..config import GenerateConfig
from ..errors import CancelledError, UsageError
from .contexts import Context
from .generate import Generated, generate
from .points import Mark
from .watch import Watch

Rows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Forced:
    """logits: float32 [len(forced) + 1, n_vocab]; generated: the model's own answer."""

    logits: Rows
    forced: list[int]
    generated: Generated


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


def check_forced(answer_tokens: Sequence[int] | None, n_own: int | None, n_vocab: int) -> list[int] | None:
    """The given tokens. Raises UsageError."""
    if n_own is not None and (answer_tokens is not None or n_own < 0):
        raise UsageError(f"n_own is {n_own}; it is a count from 0, for a score without answer_tokens")
    if answer_tokens is None:
        return None
    rule = f"give ids of the vocabulary, whole numbers from 0 to {n_vocab - 1}"
    tokens = several("answer_tokens", answer_tokens, f"{rule}, in a list")
    return [whole("an answer token", token, rule, 0, n_vocab - 1) for token in tokens]


def force(
    context: Context, given: list[int] | None, options: GenerateConfig, n_own: int | None, watch: Watch
) -> Forced:
    """After a prefilled prompt: see VisionLLM.score. An answer that was ended from outside is no answer to score."""
    mark, drawn = context.mark(), _Drawn(context, given, n_own if given is None else len(given))
    generated = generate(context, options, on_draw=drawn, watch=watch)
    if generated.stop_reason == "interrupted":
        raise KeyboardInterrupt
    if generated.stop_reason == "cancelled":
        raise CancelledError("the score was cancelled before it was complete; ask again")
    forced = generated.tokens[:n_own] if given is None else given
    return Forced(_follow(context, mark, drawn.rows[: len(forced) + 1], forced), forced, generated)


def _follow(context: Context, mark: Mark, rows: list[Rows], forced: list[int]) -> Rows:
    """The rows that are there, and the rest: float32 [len(forced) + 1, n_vocab]. mark: the end of the prompt."""
    if len(rows) <= len(forced):
        n_known = len(rows) - 1  # tokens behind the last row; one row at least was drawn from
        fork = replace(mark, n_past=mark.n_past + n_known, n_cells=mark.n_cells + n_known)
        if context.mark() != fork:
            context.rewind(fork if context.can_rewind(fork) else mark)
            context.decode_tokens(forced[context.n_past - mark.n_past : n_known], logits=False)
        for token in forced[n_known:]:
            context.decode_tokens([token], logits=True)
            rows.append(context.logits())
    return np.stack(rows)
