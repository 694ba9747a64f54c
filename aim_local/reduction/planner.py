"""What a run will count and cost: visual tokens per layer, stages, FLOPs, KV bytes. Pure functions of numbers.

Policy (VisualTokenConfig) expands here to plain per-layer lists; the native side only reads the lists.
FLOPs follow the authors' cost model (docs/method.md), which reproduces the published figures.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from ..config import VisualTokenConfig
from ..errors import UsageError

PAPER_DEPTH, PAPER_LAYERS = 28, (14, 22)  # AIM section 4.1: l1 and l2 for a 28-layer model
_EPS = 1e-9  # 0.29 * 100 must count as 29
_RETAIN_DIGITS = 6  # decimals of the shares that resolve_budget tries


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
    """Sizes of a vision tower and its two-layer projector. n_patch: patches of one tile.

    n_merged: those that layers from il_merged on compute, where the tower merges inside. gated: a third matrix in each
    feed-forward block. n_windowed: layers whose patches attend to `window` patches only. projector: multiplications of
    one tile, where it is another than two layers over every patch.
    """

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_patch: int
    patch_px: int
    n_embd_text: int
    n_merged: int = 0
    il_merged: int = 0
    gated: bool = False
    n_windowed: int = 0
    window: int = 0
    projector: int = 0

    def merged(self, retain: float, depth: float) -> VisionShape:
        """The same with merging inside (LoadConfig.vision_merge, vision_merge_depth), as tower-merge.cpp counts."""
        if retain == 1 or self.n_layer < 2:
            return self
        il = min(max(1, math.floor(depth * self.n_layer + 0.5)), self.n_layer - 1)
        return replace(self, n_merged=merge_count(self.n_patch, retain), il_merged=il)


@dataclass(frozen=True)
class Stage:
    """Layers il_first..il_last (inclusive) that see the same n_visual visual tokens."""

    il_first: int
    il_last: int
    n_visual: int


# --- counts ----------------------------------------------------------------------------------------------------------


def paper_layers(n_layer: int) -> tuple[int, int]:
    """The paper's (l1, l2) for another depth, scaled by n_layer / 28 and rounded. Raises UsageError below 3 layers."""
    if n_layer < 3:  # nothing lies between l1 and the end: it would prune nothing and not say so
        raise UsageError(f"the paper's schedule needs more than {n_layer} layers; give retention per layer instead")
    l1, l2 = (round(il * n_layer / PAPER_DEPTH) for il in PAPER_LAYERS)
    return min(l1, l2 - 1), l2


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
    if isinstance(config.prune_layers, tuple):
        return schedule(n_layer, *config.prune_layers)
    l1, l2 = paper_layers(n_layer)
    return schedule(n_layer, l2 - 1 if config.prune_layers == "late" else l1, l2)


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


def stage_begins(shares: Sequence[float]) -> list[int]:
    """First layer of every run of equal shares.

    Stages by share, not by count: small prompts round different shares to one count, and a chat keeps the stages of
    its KV cache while the counts change from turn to turn.
    """
    return [il for il, share in enumerate(shares) if il == 0 or share != shares[il - 1]]


def scored_layers(counts: Sequence[int]) -> list[int]:
    """Layers whose attention ranks the visual tokens: the next layer sees fewer, and not none."""
    return [il for il in range(len(counts) - 1) if 0 < counts[il + 1] < counts[il]]


def held_row_bytes(shape: TextShape, shares: Sequence[float]) -> int:
    """Bytes that a conversation holds of each of its rows to rank earlier visual tokens again; 0 where none are pruned.

    The float32 hidden state that leaves the last layer before pruning, and its queries there where that layer ranks.
    """
    begins = stage_begins(shares)
    if len(begins) == 1:
        return 0
    n_query = shape.n_head * (shape.d_head or shape.n_embd // shape.n_head)
    return 4 * (shape.n_embd + (n_query if shares[begins[1]] > 0 else 0))


# --- cost ------------------------------------------------------------------------------------------------------------


def layer_flops(shape: TextShape, n: int) -> float:
    """FLOPs of one layer over n tokens, the authors' cost model: full square attention, n_embd wide activation."""
    return row_flops(shape, n) + attention_flops(shape, n * n)


def row_flops(shape: TextShape, n: int) -> float:
    """The part of a layer that each of n tokens costs alone: matrices, two norms, residual, activation."""
    h, kv, ff = shape.n_embd, shape.n_embd_kv, shape.n_ff
    linear = 2.0 * n * (2 * h * h + 2 * h * kv + 3 * h * ff)
    norms, residual, activation = 14.0 * n * h, 1.0 * n * h, 2.0 * n * h
    return linear + norms + residual + activation


def attention_flops(shape: TextShape, n_pairs: int) -> float:
    """The part of a layer that each pair of a query and a key costs: products and softmax."""
    return 4.0 * n_pairs * shape.n_embd + 5.0 * shape.n_head * n_pairs


def head_flops(shape: TextShape) -> float:
    """The output head on one row."""
    return float(shape.n_embd) * shape.n_vocab


def prefill_flops(shape: TextShape, n_text: int, counts: Sequence[int]) -> float:
    """FLOPs of a prefill with `counts[il]` visual tokens entering layer il; the output head runs on one row."""
    return sum(layer_flops(shape, n_text + n) for n in counts) + head_flops(shape)


def ranked_again_flops(shape: TextShape, n_new: int, n_text: int, shares: Sequence[float], n_visual: int) -> float:
    """FLOPs of a turn of n_new rows that ranks all n_visual visual tokens of a conversation with n_text text tokens.

    The layers before pruning run the new rows only, the others all rows that they keep.
    """
    counts, begins = layer_counts(n_visual, shares), [*stage_begins(shares), len(shares)]
    first = begins[1] * layer_flops(shape, n_new)
    return first + sum(layer_flops(shape, n_text + n) for n in counts[begins[1] :]) + head_flops(shape)


def scoring_flops(shape: TextShape, n_text: int, counts: Sequence[int], n_query: int | None = None) -> float:
    """FLOPs of ranking by "pagerank": per scored layer and head QK^T, a softmax, five vector-matrix products.

    Full squares, as in layer_flops; the CPU skips most of what the causal mask clears. n_query: where that many rows
    rank by their attention: one product.
    """
    d = shape.d_head or shape.n_embd // shape.n_head
    sizes = [n_text + counts[il] for il in scored_layers(counts)]
    if n_query is not None:
        return sum(shape.n_head * n_query * n * (2.0 * d + 5.0 + 2.0) for n in sizes)
    return sum(shape.n_head * n * n * (2.0 * d + 5.0 + 5 * 2.0) for n in sizes)


def merging_flops(n: int, n_embd: int, retain: float) -> float:
    """FLOPs of token merging on one frame of n tokens: a similarity product per step."""
    total, target = 0.0, merge_count(n, retain)
    while n > target:
        total += 2.0 * (n - n // 2) * (n // 2) * n_embd
        n -= min(n - target, n // 2)
    return total


def ward_flops(n: int, n_embd: int) -> float:
    """FLOPs of Ward's clustering of n rows: half of their Gram matrix. Its n^2 updates are not worth counting."""
    return float(n) * n * n_embd


def encoder_flops(shape: VisionShape, n_tiles: int) -> float:
    """FLOPs of vision tower and projector over n_tiles tiles."""
    h, n_late = shape.n_embd, shape.n_merged or shape.n_patch
    n_early_layers = shape.il_merged if shape.n_merged else shape.n_layer

    def block(p: int) -> float:
        return (
            2.0 * p * (4 * h * h + (3 if shape.gated else 2) * h * shape.n_ff) + (4.0 * h + 5.0 * shape.n_head) * p * p
        )

    blocks = n_early_layers * block(shape.n_patch) + (shape.n_layer - n_early_layers) * block(n_late)
    apart = max(0, shape.n_patch - shape.window) if shape.n_windowed else 0  # patches that a patch does not attend to
    blocks -= shape.n_windowed * (4.0 * h + 5.0 * shape.n_head) * shape.n_patch * apart
    embed = 2.0 * shape.n_patch * h * 3 * shape.patch_px**2
    distances = 1.0 * shape.n_patch**2 * h if shape.n_merged else 0.0  # half of a square matrix
    projector = 2.0 * (shape.projector or n_late * (h * shape.n_embd_text + shape.n_embd_text**2))
    return n_tiles * (blocks + embed + distances + projector)


def kv_bytes(shape: TextShape, cells: int, type_k: str = "f16", type_v: str = "f16") -> int:
    """Bytes of `cells` layer-tokens. Before the padding of a context's cells to 8, or to 256 on a GPU."""
    return cells * sum(row_bytes(shape.n_embd_kv, name) for name in (type_k, type_v))


def row_bytes(n: int, type_name: str) -> int:
    """Bytes of a row of n values of a ggml type, named as in LoadConfig.type_k."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name.upper()]]
    return int(n // block * size)


# --- budget ----------------------------------------------------------------------------------------------------------


def resolve_budget(
    share: float, shape: TextShape, n_text: int, n_full: int, count: Callable[[float], int]
) -> VisualTokenConfig:
    """The configuration that spends at most `share` of a prompt's full FLOPs and keeps the most tokens.

    n_text, n_full: text tokens, and visual tokens without any reduction. count(retain): visual tokens left by token
    merging, not falling in retain. The paper's schedule with the largest merge_retain that fits (of 1e-6 steps); where
    it fits without merging, no merging and the latest schedule that fits. 1.0, or no visual tokens: off.
    Raises UsageError for a share outside (0, 1] or below what the fewest tokens cost, naming the smallest.
    """
    if not 0 < share <= 1:
        raise UsageError(f"budget is {share!r}; it is the share of the full prompt's FLOPs, above 0 and at most 1")
    if share == 1 or n_full == 0:
        return VisualTokenConfig.off()
    full = prefill_flops(shape, n_text, [n_full] * shape.n_layer)
    l1, l2 = paper_layers(shape.n_layer)

    def cost(retain: float, layers: tuple[int, int]) -> float:
        counts = layer_counts(count(retain), schedule(shape.n_layer, *layers))
        return prefill_flops(shape, n_text, counts) / full

    if cost(1.0, (l1, l2)) <= share:
        later = [(l1 + k, min(l2 + k, shape.n_layer)) for k in range(shape.n_layer - l1)]
        fits = [layers for layers in later if cost(1.0, layers) <= share]
        return VisualTokenConfig(merge_retain=1.0, prune_layers=fits[-1])
    retain = _largest_retain(lambda retain: cost(retain, (l1, l2)) <= share, count)
    if retain is None:
        least = math.ceil(cost(10**-_RETAIN_DIGITS, (l1, l2)) * 1e4) / 1e4
        raise UsageError(
            f"budget {share:g} is out of reach: the smallest for this prompt is {least:g} "
            f"({n_text} text tokens are never reduced)"
        )
    return VisualTokenConfig(merge_retain=retain)


def _largest_retain(fits: Callable[[float], bool], count: Callable[[float], int]) -> float | None:
    """The largest share below 1 that fits, None if none does; of those with one count the shortest decimal fraction."""
    found = [_largest_fraction(fits, 10**digits) for digits in range(1, _RETAIN_DIGITS + 1)]
    best = found[-1]
    return next((retain for retain in found if retain and best and count(retain) == count(best)), None)


def _largest_fraction(fits: Callable[[float], bool], scale: int) -> float | None:
    """The largest k / scale in (0, 1) that fits."""
    k = bisect_left(range(1, scale), True, key=lambda k: not fits(k / scale))
    return k / scale if k else None
