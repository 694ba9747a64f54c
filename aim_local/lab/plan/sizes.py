"""What a prompt counts: tokens, layers, stages, FLOPs. The engine's plan decides; this keeps its numbers and adds work.

A model with its weights and one without give the same, so that a calibration describes its runs as a plan does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...config import BY_QUESTION, VisualTokenConfig
from ...engine.model import Model
from ...engine.plan import Plan
from ...media.outline import Outline
from ...models.base import TowerFacts
from ...reduction.planner import (
    Stage,
    attention_flops,
    encoder_flops,
    head_flops,
    merging_flops,
    prefill_flops,
    row_flops,
    scored_layers,
    scoring_flops,
    stages,
    ward_flops,
)


@dataclass(frozen=True)
class Sizes:
    """Counts of one prompt. counts: visual tokens entering each layer. tiles: encoder runs.

    n_pairs: query-key pairs over all layers, as they are computed: rows in ubatches, each against the keys so far.
    n_passes: layers times ubatches. flops: by part; "prefill" is the cost model of docs/method.md, "full" the same
    prompt without reduction. n_query: rows that rank the visual tokens, None: all. together: rows that are merged with
    each other, window by window and part by part.
    """

    n_frames: int
    n_images: int
    n_text: int
    n_visual_full: int
    n_visual: int
    counts: list[int]
    stages: list[Stage]
    scored: list[int]
    n_tiles: int
    n_passes: int
    n_pairs: int
    tokens: VisualTokenConfig
    n_query: int | None = None
    together: tuple[int, ...] = ()
    flops: dict[str, float] = field(default_factory=dict)

    @property
    def n_prompt(self) -> int:
        return self.n_text + self.n_visual

    @property
    def rows(self) -> list[int]:
        """Rows each layer computes."""
        return [self.n_text + n for n in self.counts]


def measure_sizes(model: Model, plan: Plan, outlines: Sequence[Outline]) -> Sizes:
    """Counts of a planned prompt. outlines: of its media."""
    counts = plan.counts
    rows = [plan.n_text + n for n in counts]
    ranked = plan.tokens.importance not in ("random", "grid")
    videos = [o for o in outlines if o.shape.kind == "video"]
    sizes = Sizes(
        n_frames=sum(o.n_pictures for o in videos),
        n_images=len(outlines) - len(videos),
        n_text=plan.n_text,
        n_visual_full=plan.n_visual_full,
        n_visual=plan.n_visual,
        counts=counts,
        stages=stages(counts),
        scored=scored_layers(counts) if ranked else [],
        n_tiles=sum(model.tower.n_tiles(o.shape) for o in outlines) if model.tower else 0,
        n_passes=sum(-(-n // model.config.n_ubatch) for n in rows),
        n_pairs=sum(_pairs(n, model.config.n_ubatch) for n in rows),
        tokens=plan.tokens,
        n_query=_n_query(plan),
        together=_together(model, plan, outlines),
    )
    return replace(sizes, flops=_flops(model, sizes, outlines))


def _together(model: Model, plan: Plan, outlines: Sequence[Outline]) -> tuple[int, ...]:
    tower, window = model.tower, plan.tokens.merge_window
    return tuple(n for o in outlines for n in tower.merged_together(o.shape, window)) if tower else ()


def _n_query(plan: Plan) -> int | None:
    how = plan.tokens.importance
    if how == "last_query":
        return 1
    return plan.n_asking if how in BY_QUESTION else None


def tower_facts(model: Model) -> TowerFacts | None:
    """Sizes of the vision tower; None without one, and for one whose sizes only the loaded tower knows."""
    return model.tower.facts if model.tower else None


def facts_of(model: Model, outlines: Sequence[Outline]) -> list[TowerFacts]:
    """Sizes of the tiles of each item; [] where `tower_facts` is None."""
    found = [model.tower.facts_of(o.shape) for o in outlines] if model.tower else []
    return [facts for facts in found if facts is not None]


def _pairs(n: int, n_ubatch: int) -> int:
    """Query-key pairs of n rows in ubatches: each ubatch against the keys up to its last row."""
    return sum(min(n_ubatch, n - i) * min(i + n_ubatch, n) for i in range(0, n, n_ubatch))


def _flops(model: Model, sizes: Sizes, outlines: Sequence[Outline]) -> dict[str, float]:
    shape = model.text.shape
    return {
        "vision": _encoding(model, outlines),
        "merge": _merging(model, sizes),
        "prefill": prefill_flops(shape, sizes.n_text, sizes.counts),
        "full": prefill_flops(shape, sizes.n_text, [sizes.n_visual_full] * shape.n_layer),
        "importance": scoring_flops(shape, sizes.n_text, sizes.counts, sizes.n_query) if sizes.scored else 0.0,
        "rows": sum(row_flops(shape, n) for n in sizes.rows) + head_flops(shape),
        "pairs": attention_flops(shape, sizes.n_pairs),
    }


def _encoding(model: Model, outlines: Sequence[Outline]) -> float:
    tower = model.tower
    if tower is None:
        return 0.0
    seen = zip(facts_of(model, outlines), outlines, strict=False)
    return float(sum(encoder_flops(facts.vision, tower.n_tiles(o.shape)) for facts, o in seen))


def clustered(sizes: Sizes) -> int:
    """Most rows that are clustered together, 0 where there is no clustering."""
    is_clustered = sizes.tokens.merge_by == "ward" and sizes.tokens.merge_retain < 1
    return max(sizes.together, default=0) if is_clustered else 0


def _merging(model: Model, sizes: Sizes) -> float:
    tokens, n_embd = sizes.tokens, model.text.n_embd
    if tower_facts(model) is None or tokens.merge_retain == 1:
        return 0.0
    if tokens.merge_by == "ward":
        return sum(ward_flops(n, n_embd) for n in sizes.together)
    return sum(merging_flops(n, n_embd, tokens.merge_retain) for n in sizes.together)
