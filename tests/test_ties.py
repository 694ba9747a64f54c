"""What the oracle lets pass as a near tie: kept sets and greedy tokens that may differ, and those that may not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from limits import FLOAT16, FLOAT32, LIMITS
from reference_aim import Result
from staged_oracle import Agreement, decode_both, score_distance


def choice(scores: list[float], chosen: list[int]) -> Result:
    """Of rows 0, 1, ... of layer 0 with these scores, `chosen` enter layer 1."""
    return Result(torch.zeros(1), [list(range(len(scores)))], {0: torch.tensor(scores).double()}, {1: chosen})


def test_other_rows_are_as_far_apart_as_their_scores() -> None:
    result = choice([0.8, 0.5, 0.4, 0.3, 0.1], [0, 1, 2])
    assert result.apart(1, [0, 1, 2]) == 0
    assert result.apart(1, [0, 1, 3]) == pytest.approx(0.1 / 0.4)
    assert result.apart(1, [0, 3, 4]) == pytest.approx((0.5 - 0.1) / 0.4)  # not only the two at the cut
    assert choice([0.0, 0.0, 0.0], [0]).apart(1, [2]) == 0


class Decoder:
    """The same logits whatever the token: a context, or a reference."""

    def __init__(self, logits: Any) -> None:
        self.logits = logits

    def decode(self, token: int) -> Any:
        return self.logits


def decode(ours: list[float], theirs: list[float]) -> Agreement:
    agreement, truth = Agreement(), torch.tensor(theirs, dtype=torch.float64)
    context: Any = Decoder(np.array(ours))
    reference: Any = Decoder(truth)
    decode_both(context, reference, truth, 2, agreement)
    return agreement


def test_another_token_passes_where_the_oracle_is_undecided() -> None:
    """The gap of the oracle's two logits counts, as a share of its largest; -4 is the largest here."""
    near = LIMITS.logits
    assert decode([1.0, 0.5, -4.0], [1.0, 0.5, -4.0]).ties == []
    (gap,) = decode([1.0, 1.0 + near, -4.0], [1.0, 1.0 - 2 * near, -4.0]).ties
    assert gap == pytest.approx(near / 2)
    with pytest.raises(AssertionError, match="token 1 differs"):
        decode([1.0, 1.0 + near, -4.0], [1.0, 1.0 - 8 * near, -4.0])


def test_limits_of_rounded_products_are_wider() -> None:
    for name in ("logits", "whole", "rows", "importance", "tie", "again"):
        assert getattr(FLOAT16, name) > getattr(FLOAT32, name)


def test_rounded_scores_near_nothing_are_not_measured_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hardly anything of the walk is left on the new rows, rounding of every step multiplies."""
    tiny, twice = torch.tensor([2e-11, 1e-11]).double(), torch.tensor([4e-11, 1e-11]).double()
    monkeypatch.setattr("staged_oracle.LIMITS", FLOAT32)
    assert score_distance(twice, tiny) == pytest.approx(1)
    monkeypatch.setattr("staged_oracle.LIMITS", FLOAT16)
    assert score_distance(twice, tiny) == pytest.approx(2e-11 / 1e-6)
    assert score_distance(1e10 * twice, 1e10 * tiny) == pytest.approx(1)  # 0.2 is a score like any other
