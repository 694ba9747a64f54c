"""Native prefill and decode beside the independent oracle (reference_aim.py): how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from reference_aim import Reference, pagerank
from staged_models import Prompt, distance, run

from aim_local.native.staged import StagedContext

LIMIT = 1e-4  # of the largest logit or score: f32 against float64
NEAR_TIE = 1e-4  # relative distance of the two scores at the cut-off below which either choice is right


@dataclass
class Agreement:
    logits: float = 0.0  # largest difference over the largest logit
    importance: float = 0.0  # the same for scores
    cuts: int = 0
    near: int = 0
    overlap: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        overlap = f", kept-set overlap {min(self.overlap):.4f} to {max(self.overlap):.4f}" if self.overlap else ""
        return (f"logits differ by {self.logits:.2e} of the largest, importance by {self.importance:.2e}; "
                f"{self.cuts} cuts, {self.near} closer than {NEAR_TIE:g}{overlap}")  # fmt: skip


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
    """Prefills both; asserts the counts and, if exact, the kept sets. Returns the native logits."""
    logits = torch.tensor(run(ctx, prompt, counts, **options)).double()
    kept = [ctx.kept(il).tolist() for il in range(ctx.n_layer)]
    assert [len(k) for k in kept] == list(counts)
    expected = reference.prefill(prompt.embeds(reference), prompt.is_visual, counts, dict(enumerate(kept)), score)
    for il, scores in expected.importance.items():
        native = torch.tensor(ctx.importance(il)).double()
        agreement.importance = max(agreement.importance, distance(native, scores))
    for il, chosen in expected.chosen.items():
        agreement.cuts += 1
        agreement.near += expected.margin[il] < NEAR_TIE
        agreement.overlap.append(len(set(chosen) & set(kept[il])) / len(chosen))
        if expected.margin[il] >= NEAR_TIE and exact:
            assert kept[il] == chosen, f"layer {il} keeps other rows, margin {expected.margin[il]:.2e}"
    assert [il for il in range(ctx.n_layer) if ctx.importance(il) is not None] == list(expected.importance)
    agreement.logits = max(agreement.logits, distance(logits, expected.logits))
    return logits


def decode_both(ctx: StagedContext, reference: Reference, logits: torch.Tensor, n: int, agreement: Agreement) -> None:
    """n greedy tokens; asserts that both choose the same ones."""
    ours = theirs = logits
    for i in range(n):
        token = int(theirs.argmax())
        assert int(ours.argmax()) == token, f"token {i} differs"
        ours, theirs = torch.tensor(ctx.decode(token)), reference.decode(token)
        agreement.logits = max(agreement.logits, distance(ours, theirs))
