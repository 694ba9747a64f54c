"""What a prompt counts: tokens, layers, stages, FLOPs. Run and planner decide; this asks them and keeps the answers.

Works on a model's head and on a loaded model alike, so that a calibration describes its runs with the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...config import VisualTokenConfig
from ...engine.plan import PromptPlan, Run
from ...media import Video
from ...media.outline import Outline
from ...models.pieces import count_text, count_visual, count_visual_full
from ...reduction.planner import (
    Stage,
    attention_flops,
    encoder_flops,
    head_flops,
    layer_counts,
    merging_flops,
    prefill_flops,
    row_flops,
    scored_layers,
    scoring_flops,
    stages,
)

if TYPE_CHECKING:
    from ...llm import VisionLLM
    from .head import ModelHead


@dataclass(frozen=True)
class Sizes:
    """Counts of one prompt. counts: visual tokens entering each layer. tiles: encoder runs.

    n_pairs: query-key pairs over all layers, as they are computed: rows in ubatches, each against the keys so far.
    n_passes: layers times ubatches. flops: by part; "prefill" is the cost model of docs/method.md, "full" the same
    prompt without reduction.
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
    flops: dict[str, float] = field(default_factory=dict)

    @property
    def n_prompt(self) -> int:
        return self.n_text + self.n_visual

    @property
    def rows(self) -> list[int]:
        """Rows each layer computes."""
        return [self.n_text + n for n in self.counts]


def measure_sizes(model: ModelHead | VisionLLM, run: Run, prompt: PromptPlan, outlines: Sequence[Outline]) -> Sizes:
    """Counts of a planned prompt. `run` has planned it."""
    counts = layer_counts(count_visual(prompt.pieces), run.shares)
    rows = [count_text(prompt.pieces) + n for n in counts]
    ranked = run.tokens.importance not in ("random", "grid")
    videos = [o for o in outlines if isinstance(o.item, Video)]
    sizes = Sizes(
        n_frames=sum(o.n_pictures for o in videos),
        n_images=len(outlines) - len(videos),
        n_text=count_text(prompt.pieces),
        n_visual_full=count_visual_full(prompt.pieces),
        n_visual=count_visual(prompt.pieces),
        counts=counts,
        stages=stages(counts),
        scored=scored_layers(counts) if ranked else [],
        n_tiles=sum(model.vision.n_tiles(o.item) for o in outlines) if model.vision else 0,
        n_passes=sum(-(-n // model.config.n_ubatch) for n in rows),
        n_pairs=sum(_pairs(n, model.config.n_ubatch) for n in rows),
        tokens=run.tokens,
    )
    sizes.flops.update(_flops(model, sizes))
    return sizes


def _pairs(n: int, n_ubatch: int) -> int:
    """Query-key pairs of n rows in ubatches: each ubatch against the keys up to its last row."""
    return sum(min(n_ubatch, n - i) * min(i + n_ubatch, n) for i in range(0, n, n_ubatch))


def _flops(model: ModelHead | VisionLLM, sizes: Sizes) -> dict[str, float]:
    shape = model.text.shape
    return {
        "vision": encoder_flops(model.vision.shape, sizes.n_tiles) if model.vision and sizes.n_tiles else 0.0,
        "merge": _merging(model, sizes),
        "prefill": prefill_flops(shape, sizes.n_text, sizes.counts),
        "full": prefill_flops(shape, sizes.n_text, [sizes.n_visual_full] * shape.n_layer),
        "importance": scoring_flops(shape, sizes.n_text, sizes.counts) if sizes.scored else 0.0,
        "rows": sum(row_flops(shape, n) for n in sizes.rows) + head_flops(shape),
        "pairs": attention_flops(shape, sizes.n_pairs),
    }


def _merging(model: ModelHead | VisionLLM, sizes: Sizes) -> float:
    """Of frames, and of pictures as if each tile were merged alone (base view and grid are merged apart)."""
    if model.vision is None or not sizes.n_tiles or sizes.tokens.merge_retain == 1:
        return 0.0
    n_embd, retain = model.text.n_embd, sizes.tokens.merge_retain
    frames = sizes.n_frames * merging_flops(model.vision.frame_slots, n_embd, retain)
    tiles = (sizes.n_tiles - sizes.n_frames) * merging_flops(model.vision.patches_per_side**2, n_embd, retain)
    return frames + tiles
