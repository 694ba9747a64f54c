"""Numbers that say nothing: logits and visual rows that hold NaN or infinity are an error, never an answer.

They come of damaged weights, or of a head that makes a sum of nothing, such as a rope base of 0. So do logits that are
all the same, which a device that computes nothing leaves too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, NotFiniteError
from .stop import StopHook

Rows = NDArray[np.float32]
_CURE = "its weights or its head are damaged: download or convert it again"


def finite_logits(logits: Rows, path: Path | None = None, *, stop: StopHook | None = None) -> Rows:
    """The same logits, float32 [n_vocab], of the model at `path`. Raises NotFiniteError for NaN and infinity.

    And where all are one number: no token comes before another then.
    -inf is allowed, unless it is all there is: a token that cannot be has it.
    stop: of what computed them; it raises for another machine that was lost, which leaves zeros or any number.
    """
    if stop:
        stop.check_done()
    fault = _fault(logits)
    if fault:
        if stop:
            stop.check_late()
        raise NotFiniteError(f"{path or 'the model'}: next-token scores are {fault}; {_CURE}")
    return logits


def _fault(logits: Rows) -> str:
    highest = logits.max()
    if not np.isfinite(highest):  # NaN goes through it
        return "not finite numbers (NaN or infinity)"
    return f"all {highest:g}" if logits.size > 1 and highest == logits.min() else ""


def finite_rows(rows: Rows, path: Path | None = None) -> Rows:
    """The same rows, float32 of any shape, of the mmproj at `path`. Raises ModelError for NaN and infinity."""
    if not np.isfinite(rows).all():
        whose = f"{path}: " if path else "the vision tower's "
        raise ModelError(f"{whose}visual tokens are not finite numbers (NaN or infinity); {_CURE}")
    return rows
