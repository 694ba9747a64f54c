"""What a run will count and cost: visual tokens per layer, stages, FLOPs, KV bytes. Pure functions of numbers.

Policy (VisualTokenConfig) expands here to plain per-layer lists; the native side only reads the lists.
FLOPs follow the authors' cost model (docs/method.md), which reproduces the published figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .config import VisualTokenConfig
from .errors import UsageError

PAPER_DEPTH, PAPER_LAYERS = 28, (14, 22)  # AIM section 4.1: l1 and l2 for a 28-layer model
_EPS = 1e-9  # 0.29 * 100 must count as 29


@dataclass(frozen=True)
class TextShape:
    """Sizes of a language model. d_head: width of one head; n_ff: width inside the feed-forward block."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int
    d_head: int = 0

    @property
    def n_embd_kv(self) -> int:
        return self.n_head_kv * (self.d_head or self.n_embd // self.n_head)


@dataclass(frozen=True)
class VisionShape:
    """Sizes of a vision tower and its two-layer projector. n_patch: patches of one tile."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_patch: int
    patch_px: int
    n_embd_text: int


@dataclass(frozen=True)
class Stage:
    """Layers il_first..il_last (inclusive) that see the same n_visual visual tokens."""

    il_first: int
    il_last: int
    n_visual: int


# --- counts ----------------------------------------------------------------------------------------------------------


def paper_layers(n_layer: int) -> tuple[int, int]:
    """The paper's (l1, l2) for another depth, scaled by n_layer / 28 and rounded. Raises UsageError below 3 layers."""
    l1, l2 = (round(il * n_layer / PAPER_DEPTH) for il in PAPER_LAYERS)
    if l1 >= l2:
        raise UsageError(f"the paper's schedule needs more than {n_layer} layers; give retention per layer instead")
    return l1, l2


def schedule(n_layer: int, l1: int, l2: int) -> list[float]:
    """Share of visual tokens that enters each layer: 1 up to l1, linearly down to 0 from l2 on (AIM section 3.2)."""
    if not 0 <= l1 < l2:
        raise UsageError(f"prune_layers is ({l1}, {l2}); l1 must be at least 0 and below l2")
    if l2 > n_layer:
        raise UsageError(f"prune_layers is ({l1}, {l2}); l2 must not go beyond the model's {n_layer} layers")
    return [1.0 if il <= l1 else 0.0 if il >= l2 else 1 - (il - l1) / (l2 - l1) for il in range(n_layer)]


def layer_shares(config: VisualTokenConfig, n_layer: int) -> list[float]:
    """The share of visual tokens (after merging) that enters each layer. Raises UsageError where they do not fit."""
    if config.retention is not None:
        if len(config.retention) != n_layer:
            raise UsageError(f"retention has {len(config.retention)} shares for {n_layer} layers; give one each")
        return [float(share) for share in config.retention]
    if config.prune_layers is None:
        return [1.0] * n_layer
    l1, l2 = paper_layers(n_layer) if config.prune_layers == "auto" else config.prune_layers
    return schedule(n_layer, l1, l2)


def layer_counts(n_visual: int, shares: Sequence[float]) -> list[int]:
    """Visual tokens entering each layer: floor of the share of the original number, not compounding."""
    return [math.floor(n_visual * share + _EPS) for share in shares]


def merge_count(n: int, retain: float) -> int:
    """Rows left of n by token merging (AIM section 3.1)."""
    return max(1, math.floor(n * retain + _EPS)) if n else 0


def stages(counts: Sequence[int]) -> list[Stage]:
    """Runs of layers with one count."""
    found: list[Stage] = []
    for il, n in enumerate(counts):
        if found and found[-1].n_visual == n:
            found[-1] = Stage(found[-1].il_first, il, n)
        else:
            found.append(Stage(il, il, n))
    return found


def scored_layers(counts: Sequence[int]) -> list[int]:
    """Layers whose attention ranks the visual tokens: the next layer sees fewer, and not none."""
    return [il for il in range(len(counts) - 1) if 0 < counts[il + 1] < counts[il]]


# --- cost ------------------------------------------------------------------------------------------------------------


def layer_flops(shape: TextShape, n: int) -> float:
    """FLOPs of one layer over n tokens, the authors' cost model: full square attention."""
    h, kv, ff = shape.n_embd, shape.n_embd_kv, shape.n_ff
    linear = 2.0 * n * (2 * h * h + 2 * h * kv + 3 * h * ff)
    attention = 4.0 * n * n * h + 5.0 * shape.n_head * n * n
    return linear + attention + 14.0 * n * h + n * h + 2.0 * n * ff


def prefill_flops(shape: TextShape, n_text: int, counts: Sequence[int]) -> float:
    """FLOPs of a prefill with `counts[il]` visual tokens entering layer il; the output head runs on one row."""
    return sum(layer_flops(shape, n_text + n) for n in counts) + float(shape.n_embd) * shape.n_vocab


def charged_early(counts: Sequence[int]) -> list[int]:
    """Counts as the authors' FLOPs script charges them: each layer at the next one's count (docs/method.md)."""
    return [*counts[1:], counts[-1]]


def scoring_flops(shape: TextShape, n_text: int, counts: Sequence[int]) -> float:
    """FLOPs of ranking: per scored layer, per head, QK^T, a softmax and five vector-matrix products over n tokens."""
    d = shape.d_head or shape.n_embd // shape.n_head
    sizes = [n_text + counts[il] for il in scored_layers(counts)]
    return sum(shape.n_head * n * n * (2.0 * d + 5.0 + 5 * 2.0) for n in sizes)


def merging_flops(n: int, n_embd: int, retain: float) -> float:
    """FLOPs of token merging on one frame of n tokens: a similarity product per step."""
    total, target = 0.0, merge_count(n, retain)
    while n > target:
        total += 2.0 * (n - n // 2) * (n // 2) * n_embd
        n -= min(n - target, n // 2)
    return total


def encoder_flops(shape: VisionShape, n_tiles: int) -> float:
    """FLOPs of vision tower and projector over n_tiles tiles."""
    p, h = shape.n_patch, shape.n_embd
    block = 2.0 * p * (4 * h * h + 2 * h * shape.n_ff) + 4.0 * p * p * h + 5.0 * shape.n_head * p * p
    embed = 2.0 * p * h * 3 * shape.patch_px**2
    projector = 2.0 * p * (h * shape.n_embd_text + shape.n_embd_text**2)
    return n_tiles * (shape.n_layer * block + embed + projector)


def kv_cells(n_text: int, counts: Sequence[int]) -> int:
    """Layer-tokens of the KV cache."""
    return sum(n_text + n for n in counts)
