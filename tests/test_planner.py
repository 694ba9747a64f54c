"""The planner against the published figures, and what must hold for every shape, depth and share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aim_local.config import VisualTokenConfig
from aim_local.errors import UsageError
from aim_local.reduction import planner
from aim_local.reduction.planner import (
    Stage,
    TextShape,
    VisionShape,
    layer_counts,
    prefill_flops,
    schedule,
)

ONEVISION_7B = TextShape(n_layer=28, n_embd=3584, n_ff=18944, n_head=28, n_head_kv=4, n_vocab=152064)
ONEVISION_HALF_B = TextShape(n_layer=24, n_embd=896, n_ff=4864, n_head=14, n_head_kv=2, n_vocab=151936)
LLAVA_7B = TextShape(n_layer=32, n_embd=4096, n_ff=11008, n_head=32, n_head_kv=32, n_vocab=32000)
SIGLIP = VisionShape(n_layer=26, n_embd=1152, n_ff=4304, n_head=16, n_patch=729, patch_px=14, n_embd_text=3584)
N_TEXT = {ONEVISION_7B: 100, LLAVA_7B: 40}  # the text lengths that reproduce the figures

FULL, MERGED = 32 * 196, 32 * 49


def charged_early(counts: Sequence[int]) -> list[int]:
    """Counts as the authors' FLOPs script charges them: each layer at the next one's count (docs/method.md)."""
    return [*counts[1:], counts[-1]]


def kv_cells(n_text: int, counts: Sequence[int]) -> int:
    """Layer-tokens of the KV cache."""
    return sum(n_text + n for n in counts)


def pruned(shape: TextShape, n: int, l1: int, l2: int) -> list[int]:
    return layer_counts(n, schedule(shape.n_layer, l1, l2))


# (model, visual tokens per layer as charged, TFLOP, A100 ms): method and reading of each are in docs/method.md
FIGURES = {
    "none": (ONEVISION_7B, [FULL] * 28, 99.63, 439.58),
    "merge": (ONEVISION_7B, [MERGED] * 28, 22.90, 83.94),
    "merge, prune": (ONEVISION_7B, charged_early(pruned(ONEVISION_7B, MERGED, 14, 22)), 14.76, 55.03),
    "merge, prune, one layer later": (ONEVISION_7B, pruned(ONEVISION_7B, MERGED, 14, 22), 15.53, 57.68),
    "merge, late drop": (ONEVISION_7B, charged_early(pruned(ONEVISION_7B, MERGED, 21, 22)), 17.50, None),
    "192 frames": (ONEVISION_7B, charged_early(pruned(ONEVISION_7B, 192 * 49, 14, 22)), 99.27, 471.20),
    "LLaVA-1.5 none": (LLAVA_7B, [576] * 32, 8.18, 29.30),
    "LLaVA-1.5 252": (LLAVA_7B, charged_early(pruned(LLAVA_7B, 252, 13, 21)), 2.22, 10.92),
    "LLaVA-1.5 72": (LLAVA_7B, charged_early(pruned(LLAVA_7B, 72, 13, 21)), 1.00, 8.98),
}


# --- the A100 roofline of the published times: an independent list of the same operations ---------------------------

A100_FLOPS, A100_BYTES, WIDTH = 312e12, 1555e9, 2  # f16 FLOP/s, bytes/s, bytes per value

Op = tuple[float, float]  # FLOPs, bytes


def layer_ops(shape: TextShape, n: int, n_residual: int) -> list[Op]:
    """Operations of a layer over n tokens, each reading and writing memory: no fusion, attention scores stored."""
    h, kv, ff, heads = shape.n_embd, shape.n_embd_kv, shape.n_ff, shape.n_head
    scores = heads * n * n
    matrices = [(h, h), (h, kv), (h, kv), (h, h), (h, ff), (h, ff), (ff, h)]
    ops: list[Op] = [(2.0 * n * a * b, WIDTH * (a * b + n * a + n * b)) for a, b in matrices]
    ops += [(2.0 * n * n * h, WIDTH * (n * kv + scores + n * kv)), (2.0 * n * n * h, WIDTH * (scores + n * h + n * kv))]
    ops += [(5.0 * scores, WIDTH * 2.0 * scores)]
    ops += [(7.0 * n * h, WIDTH * 2.0 * n * h)] * 2
    ops += [(1.0 * n * h, WIDTH * 2.0 * n * h)] * n_residual
    return [*ops, (2.0 * n * h, WIDTH * 3.0 * n * h)]


def prefill_ops(shape: TextShape, n_text: int, counts: Sequence[int], n_residual: int) -> list[Op]:
    head = 1.0 * shape.n_embd * shape.n_vocab
    ops = [op for n in counts for op in layer_ops(shape, n_text + n, n_residual)]
    return [*ops, (head, WIDTH * (head + shape.n_embd + shape.n_vocab))]


def a100_ms(ops: Sequence[Op]) -> float:
    """Each operation takes the longer of its arithmetic and its memory traffic."""
    return 1e3 * sum(max(flops / A100_FLOPS, n_bytes / A100_BYTES) for flops, n_bytes in ops)


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_published_flops(name: str) -> None:
    shape, counts, tflop, _ = FIGURES[name]
    assert round(prefill_flops(shape, N_TEXT[shape], counts) / 1e12, 2) == tflop


@pytest.mark.parametrize("name", [name for name in FIGURES if FIGURES[name][3] is not None])
def test_published_times(name: str) -> None:
    shape, counts, _, ms = FIGURES[name]
    # the authors' Qwen2 tables list one residual addition a layer, their Llama tables two
    n_residual = 1 if shape is ONEVISION_7B else 2
    assert round(a100_ms(prefill_ops(shape, N_TEXT[shape], counts, n_residual)), 2) == ms


@pytest.mark.parametrize("shape", [ONEVISION_7B, LLAVA_7B, ONEVISION_HALF_B])
def test_flops_are_the_sum_of_the_operations(shape: TextShape) -> None:
    counts = pruned(shape, 500, 3, 9)
    ops = prefill_ops(shape, 77, counts, n_residual=1)
    assert prefill_flops(shape, 77, counts) == pytest.approx(sum(flops for flops, _ in ops), rel=1e-12)


def test_prefill_ratios() -> None:
    """What really removing rows saves: one layer later than the authors charge, so 6.42 and not 6.75."""
    merged = {s: pruned(s, MERGED, *planner.paper_layers(s.n_layer)) for s in (ONEVISION_7B, ONEVISION_HALF_B)}

    def ratio(shape: TextShape, counts: list[int]) -> float:
        return prefill_flops(shape, 100, [FULL] * shape.n_layer) / prefill_flops(shape, 100, counts)

    assert round(ratio(ONEVISION_7B, merged[ONEVISION_7B]), 2) == 6.42
    assert round(ratio(ONEVISION_7B, charged_early(merged[ONEVISION_7B])), 2) == 6.75
    assert round(ratio(ONEVISION_HALF_B, merged[ONEVISION_HALF_B]), 2) == 8.35


def test_kv_cache() -> None:
    full = kv_cells(100, [FULL] * 28)
    kept = kv_cells(100, pruned(ONEVISION_7B, MERGED, 14, 22))
    assert (full, kept, round(full / kept, 1)) == (178_416, 31_808, 5.6)
    assert planner.kv_bytes(ONEVISION_7B, full) == 178_416 * 2 * 512 * 2
    assert planner.kv_bytes(ONEVISION_7B, 10, "q8_0", "f32") == 10 * (512 // 32 * 34 + 512 * 4)


def test_encoder() -> None:
    softmax = 32 * SIGLIP.n_layer * 5 * SIGLIP.n_head * SIGLIP.n_patch**2  # not in the 21.3
    encoder = (planner.encoder_flops(SIGLIP, 32) - softmax) / 1e12
    assert round(encoder, 1) == 21.3
    full, aim = 99.63 + encoder, 14.76 + encoder
    assert [round(x, 2) for x in (full / aim, encoder / full, encoder / aim)] == [3.35, 0.18, 0.59]


def test_scoring_and_merging_are_small() -> None:
    counts = pruned(ONEVISION_7B, MERGED, 14, 22)
    assert planner.scored_layers(counts) == [14, 15, 16, 17, 18, 19, 20]
    assert 0 < planner.scoring_flops(ONEVISION_7B, 100, counts) < 0.1 * prefill_flops(ONEVISION_7B, 100, counts)
    assert planner.merging_flops(196, 3584, 0.25) == 2 * 3584 * (98 * 98 + 49 * 49)
    assert planner.merging_flops(196, 3584, 1.0) == 0
    assert planner.ward_flops(196, 3584) == 2 * 3584 * (196 * 196 / 2)  # half of a Gram matrix
    # a late drop of everything needs no ranking
    assert planner.scoring_flops(ONEVISION_7B, 100, pruned(ONEVISION_7B, MERGED, 21, 22)) == 0


# --- counts and schedules ---------------------------------------------------------------------------------------------

depths = st.integers(3, 128)
prompts = st.integers(0, 20_000)


@st.composite
def schedules(draw: st.DrawFn) -> list[float]:
    n_layer = draw(st.integers(1, 128))
    l1 = draw(st.integers(0, n_layer - 1))
    return schedule(n_layer, l1, draw(st.integers(l1 + 1, n_layer)))


def test_paper_schedule() -> None:
    shares = planner.layer_shares(VisualTokenConfig.paper(), 28)
    assert shares[:15] == [1.0] * 15
    assert shares[15:22] == [0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert shares[22:] == [0.0] * 6
    assert planner.paper_layers(28) == (14, 22)
    assert planner.paper_layers(24) == (12, 19)
    assert planner.paper_layers(32) == (16, 25)
    assert [planner.merge_count(n, r) for n, r in ((196, 0.25), (576, 0.4375), (100, 0.29), (3, 0.01), (0, 0.5))] == [
        49,
        252,
        29,
        1,
        0,
    ]


@given(depths)
def test_paper_schedule_prunes_at_any_depth(n_layer: int) -> None:
    l1, l2 = planner.paper_layers(n_layer)
    assert 0 <= l1 < l2 < n_layer
    assert abs(l1 - n_layer / 2) <= 1
    assert abs(l2 - n_layer * 22 / 28) <= 0.5


@pytest.mark.parametrize("n_layer", [1, 2])
def test_paper_schedule_refuses_what_it_cannot_prune(n_layer: int) -> None:
    with pytest.raises(UsageError, match="more than"):
        planner.paper_layers(n_layer)


@pytest.mark.parametrize(("l1", "l2"), [(5, 5), (6, 5), (-1, 5), (2, 9)])
def test_bad_schedules(l1: int, l2: int) -> None:
    with pytest.raises(UsageError, match="prune_layers"):
        schedule(8, l1, l2)


def test_schedule_may_end_with_the_model() -> None:
    assert schedule(4, 2, 4) == [1.0, 1.0, 1.0, 0.5]
    assert schedule(4, 0, 1) == [1.0, 0.0, 0.0, 0.0]


def test_retention_has_one_share_per_layer() -> None:
    config = VisualTokenConfig(retention=[1.0, 0.5, 0.0])
    assert planner.layer_shares(config, 3) == [1.0, 0.5, 0.0]
    with pytest.raises(UsageError, match="3 shares for 4 layers"):
        planner.layer_shares(config, 4)
    assert planner.layer_shares(VisualTokenConfig.off(), 3) == [1.0] * 3
    assert planner.layer_shares(VisualTokenConfig(prune_layers=(0, 2)), 3) == [1.0, 0.5, 0.0]


@given(prompts, schedules())
def test_counts_fall_within_bounds(n: int, shares: list[float]) -> None:
    counts = layer_counts(n, shares)
    assert counts[0] == n
    assert all(0 <= later <= earlier for earlier, later in pairwise(counts))
    assert all(count <= n * share + 1e-6 < count + 1 + 1e-6 for count, share in zip(counts, shares, strict=True))


@given(prompts, st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True))
def test_merge_count_rises_with_the_share(n: int, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert min(n, 1) <= planner.merge_count(n, low) <= planner.merge_count(n, high) <= n
    assert planner.merge_count(n, 1.0) == n


@given(prompts, schedules())
def test_stages_tile_the_layers(n: int, shares: list[float]) -> None:
    counts = layer_counts(n, shares)
    found = planner.stages(counts)
    assert [stage.n_visual for stage in found for _ in range(stage.il_first, stage.il_last + 1)] == counts
    assert all(a.il_last + 1 == b.il_first and a.n_visual > b.n_visual for a, b in pairwise(found))
    assert sum((s.il_last + 1 - s.il_first) * (7 + s.n_visual) for s in found) == kv_cells(7, counts)
    # the stages of a KV cache do not depend on the count, and no count changes inside one
    begins = planner.stage_begins(shares)
    assert begins[0] == 0
    assert {stage.il_first for stage in found} <= set(begins)


def test_stages_by_share_outlive_the_counts() -> None:
    shares = schedule(28, 14, 22)
    assert planner.stage_begins(shares) == [0, *range(15, 23)]
    assert planner.stages(layer_counts(1, shares)) == [Stage(0, 14, 1), Stage(15, 27, 0)]


@given(prompts, schedules())
def test_scored_layers_are_those_before_a_choice(n: int, shares: list[float]) -> None:
    counts = layer_counts(n, shares)
    scored = planner.scored_layers(counts)
    assert scored == [il for il, (a, b) in enumerate(pairwise(counts)) if a != b and b != 0]


@given(st.integers(0, 2000), st.integers(1, 2000), schedules())
def test_removing_tokens_never_costs(n: int, n_text: int, shares: list[float]) -> None:
    shape = TextShape(len(shares), 64, 160, 4, 2, 100)
    counts = layer_counts(n, shares)
    assert prefill_flops(shape, n_text, charged_early(counts)) <= prefill_flops(shape, n_text, counts)
    assert prefill_flops(shape, n_text, counts) <= prefill_flops(shape, n_text, [n] * len(shares))


# --- budgets ----------------------------------------------------------------------------------------------------------


class Video:
    """Frames of n tokens each and one newline, merged frame by frame."""

    def __init__(self, frames: int, n: int) -> None:
        self.frames, self.n, self.full = frames, n, frames * n + 1

    def count(self, retain: float) -> int:
        return self.frames * planner.merge_count(self.n, retain) + 1


def spent(config: VisualTokenConfig, shape: TextShape, n_text: int, video: Video) -> tuple[float, list[int]]:
    """Share of the full FLOPs and visual tokens per layer."""
    counts = layer_counts(video.count(config.merge_retain), planner.layer_shares(config, shape.n_layer))
    full = prefill_flops(shape, n_text, [video.full] * shape.n_layer)
    return prefill_flops(shape, n_text, counts) / full, counts


def resolve(share: float, shape: TextShape, n_text: int, video: Video) -> VisualTokenConfig:
    return planner.resolve_budget(share, shape, n_text, video.full, video.count)


shapes = st.builds(
    lambda n_layer, heads, group: TextShape(n_layer, 32 * heads * group, 96 * heads, heads * group, heads, 1000),
    depths,
    st.integers(1, 8),
    st.integers(1, 4),
)
videos = st.builds(Video, st.integers(1, 64), st.integers(1, 300))
budgets = st.floats(0.005, 1.0)


@settings(deadline=None)
@given(budgets, shapes, st.integers(1, 500), videos)
def test_budget_is_kept_and_used(share: float, shape: TextShape, n_text: int, video: Video) -> None:
    try:
        config = resolve(share, shape, n_text, video)
    except UsageError as e:
        least = float(str(e).split("prompt is ")[1].split()[0])
        assert share < least
        assert least >= 1 or spent(resolve(least, shape, n_text, video), shape, n_text, video)[0] <= least
        return
    cost, _ = spent(config, shape, n_text, video)
    assert cost <= share
    assert config == resolve(share, shape, n_text, video)
    assert all(next_cost > share for next_cost in costs_of_more(config, shape, n_text, video))


def costs_of_more(config: VisualTokenConfig, shape: TextShape, n_text: int, video: Video) -> list[float]:
    """What the next larger configuration of the same kind would cost; none for the full prompt."""
    if config == VisualTokenConfig.off():
        return []
    if config.merge_retain < 1:
        per_frame = (video.count(config.merge_retain) - 1) // video.frames
        more = VisualTokenConfig(merge_retain=(per_frame + 1) / video.n)
    else:
        assert isinstance(config.prune_layers, tuple)
        l1, l2 = config.prune_layers
        more = VisualTokenConfig(merge_retain=1.0, prune_layers=(l1 + 1, min(l2 + 1, shape.n_layer)))
    return [spent(more, shape, n_text, video)[0]]


@settings(deadline=None)
@given(budgets, budgets, shapes, st.integers(1, 500), videos)
def test_smaller_budget_never_keeps_more(a: float, b: float, shape: TextShape, n_text: int, video: Video) -> None:
    low, high = sorted((a, b))
    try:
        less = spent(resolve(low, shape, n_text, video), shape, n_text, video)[1]
    except UsageError:
        assume(False)
        raise
    more = spent(resolve(high, shape, n_text, video), shape, n_text, video)[1]
    assert all(x <= y for x, y in zip(less, more, strict=True))


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.25, 0.15, 0.1, 0.05, 0.025])
def test_the_papers_range_is_reachable(share: float) -> None:
    video = Video(32, 196)
    cost, _ = spent(resolve(share, ONEVISION_7B, 100, video), ONEVISION_7B, 100, video)
    assert 0.9 * share <= cost <= share


def test_budgets_have_readable_shares() -> None:
    video = Video(32, 196)
    found = {share: resolve(share, ONEVISION_7B, 100, video) for share in (1.0, 0.9, 0.156, 0.025)}
    assert found[1.0] == VisualTokenConfig.off()
    assert found[0.9] == VisualTokenConfig(merge_retain=1.0, prune_layers=(21, 28))
    assert found[0.156] == VisualTokenConfig.paper()
    assert found[0.025] == VisualTokenConfig(merge_retain=0.025)


def test_budget_without_visual_tokens_is_off() -> None:
    assert planner.resolve_budget(0.1, ONEVISION_7B, 100, 0, lambda _: 0) == VisualTokenConfig.off()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_bad_budgets(share: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        resolve(share, ONEVISION_7B, 100, Video(1, 4))


def test_budget_below_the_text_names_the_smallest() -> None:
    with pytest.raises(UsageError, match=r"smallest for this prompt is 0\.0161 .100 text tokens"):
        resolve(0.01, ONEVISION_7B, 100, Video(32, 196))
