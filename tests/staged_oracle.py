"""Native prefill and decode beside the independent oracle (reference_aim.py): how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from limits import LIMITS
from reference_aim import Reference, pagerank
from staged_models import Prompt, distance, run

from aim_local.native.staged import StagedContext


@dataclass
class Agreement:
    logits: float = 0.0  # largest difference over the largest logit
    importance: float = 0.0  # the same for scores
    cuts: int = 0
    other: list[float] = field(default_factory=list)  # cuts that keep other rows: how far apart their scores are
    ties: list[float] = field(default_factory=list)  # other greedy tokens: how far apart the oracle's two logits are
    overlap: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        overlap = f", kept-set overlap {min(self.overlap):.4f} to {max(self.overlap):.4f}" if self.overlap else ""
        other = f", {len(self.other)} with other rows, {max(self.other):.1e} apart" if self.other else ""
        ties = f"; {len(self.ties)} other tokens, {max(self.ties):.1e} apart" if self.ties else ""
        return (f"logits differ by {self.logits:.2e} of the largest, importance by {self.importance:.2e}; "
                f"{self.cuts} cuts{other}{overlap}{ties}")  # fmt: skip

    def check(self) -> None:
        assert self.logits < LIMITS.logits, str(self)
        assert self.importance < LIMITS.importance, str(self)


def score_distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the largest of the oracle's scores, or over the limits' floor where that is larger."""
    apart, largest = float((ours - theirs).abs().max()), max(float(theirs.abs().max()), LIMITS.floor)
    return apart / largest if largest else apart


def compare(
    ctx: StagedContext,
    reference: Reference,
    prompt: Prompt,
    counts: Sequence[int],
    agreement: Agreement,
    score: Any = pagerank,
    exact: bool = True,
    **options: Any,
) -> torch.Tensor:
    """Prefills both; asserts the counts and, if exact, the kept sets, but for near ties. Returns the native logits."""
    logits = torch.tensor(run(ctx, prompt, counts, **options)).double()
    kept = [ctx.kept(il).tolist() for il in range(ctx.n_layer)]
    assert [len(k) for k in kept] == list(counts)
    forced = dict(enumerate(kept))
    expected = reference.prefill(
        prompt.embeds(reference), prompt.is_visual, counts, forced, score, prompt.sizes, options.get("n_query"),
        prompt.rotary, prompt.added(reference.w["model.norm.weight"].numel()),
    )  # fmt: skip
    for il, scores in expected.importance.items():
        native = torch.tensor(ctx.importance(il)).double()
        agreement.importance = max(agreement.importance, score_distance(native, scores))
    for il, chosen in expected.chosen.items():
        agreement.cuts += 1
        agreement.overlap.append(len(set(chosen) & set(kept[il])) / len(chosen))
        apart = expected.apart(il, kept[il])
        if kept[il] != chosen:
            agreement.other.append(apart)
        assert apart < LIMITS.tie or not exact, f"layer {il} keeps other rows, {apart:.2e} of the cut's score apart"
    assert [il for il in range(ctx.n_layer) if ctx.importance(il) is not None] == list(expected.importance)
    agreement.logits = max(agreement.logits, distance(logits, expected.logits))
    return logits


def decode_both(ctx: StagedContext, reference: Reference, logits: torch.Tensor, n: int, agreement: Agreement) -> None:
    """n greedy tokens of the oracle; asserts that ours are the same, but where the oracle itself is undecided."""
    ours = theirs = logits
    for i in range(n):
        token, own = int(theirs.argmax()), int(ours.argmax())
        if own != token:
            tie = float((theirs[token] - theirs[own]) / theirs.abs().max())
            agreement.ties.append(tie)
            assert tie < LIMITS.logits, f"token {i} differs, its logit is {tie:.1e} of the largest from the best"
        ours, theirs = torch.tensor(ctx.decode(token)), reference.decode(token)
        agreement.logits = max(agreement.logits, distance(ours, theirs))
