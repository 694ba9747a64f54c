"""Why quantised weights keep other visual tokens: flips at each cut beside what quantisation does to the scores.

Every clip runs twice: with the model's own weights, and quantised with every cut forced to what the first run kept, so
that both score the same rows in every layer. A token is flipped where its place above or below the cut differs. Margin:
distance of its score to the cut in the first run. Noise: how far quantisation moved its score. Both in logarithms, so
relative: at temperature 0.1 the scores of a trained model span many orders of magnitude, and the lowest underflow to 0.
The free run, nothing forced, gives the overlap of the kept sets that a user sees.

  python benchmarks/kept_sets.py [--n 40] [--model FOLDER] [--type q8_0]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aim_local import VisionLLM, VisualTokenConfig, store
from aim_local.convert import quantize
from aim_local.demo import held_out, write_clip
from aim_local.results import Trace

BANDS = (0.5, 1, 2, 4)  # margins in units of the cut's median noise
SMALLEST = float(np.finfo(np.float32).tiny)  # stands in for 0, whose logarithm is not a number


@dataclass(frozen=True)
class Cut:
    """One scored layer of one prompt. margin, noise: float [n]; flipped: bool [n]; spread: std of the log scores."""

    il: int
    n_keep: int
    margin: NDArray[np.float64]
    noise: NDArray[np.float64]
    flipped: NDArray[np.bool_]
    spread: float

    @property
    def overlap(self) -> float:
        """Share of the kept tokens that both keep."""
        return 1 - float(self.flipped.sum()) / 2 / self.n_keep

    @property
    def typical_noise(self) -> float:
        return float(np.median(self.noise))


def top(scores: NDArray[np.floating[Any]], n: int) -> NDArray[np.bool_]:
    """bool [len(scores)]: the n highest; of equal ones the earlier."""
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[np.argsort(-scores, kind="stable")[:n]] = True
    return chosen


def make_cut(il: int, own: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]], n_keep: int) -> Cut:
    a, b = (np.log(np.maximum(scores.astype(np.float64), SMALLEST)) for scores in (own, other))
    order = np.sort(a)[::-1]
    level = (order[n_keep - 1] + order[n_keep]) / 2
    flipped = top(own, n_keep) != top(other, n_keep)
    return Cut(il, n_keep, np.abs(a - level), np.abs(b - a), flipped, float(a.std()))


def compare(own: VisionLLM, other: VisionLLM, prompt: str, media: Sequence[Any], **how: Any) -> tuple[list[Cut], float]:
    """The cuts of one prompt, and the overlap of the kept sets when nothing is forced."""
    tokens = how.pop("tokens", VisualTokenConfig.paper())
    want = own.prefill(prompt, media, tokens, **how).trace

    def follow(il: int, _scores: Any, _n: int) -> NDArray[np.int64]:
        return np.flatnonzero(np.isin(want.kept[il], want.kept[il + 1]))

    forced = other.prefill(prompt, media, replace(tokens, importance=follow), **how).trace
    assert all(np.array_equal(a, b) for a, b in zip(want.kept, forced.kept, strict=True))
    cuts = [make_cut(il, score, forced.importance[il], len(want.kept[il + 1])) for il, score in want.importance.items()]
    return cuts, free_overlap(want, other.prefill(prompt, media, tokens, **how).trace)


def free_overlap(a: Trace, b: Trace) -> float:
    """Mean over layers that keep some, but not all."""
    full = len(a.kept[0])
    pairs = [(x, y) for x, y in zip(a.kept, b.kept, strict=True) if 0 < len(x) < full]
    return float(np.mean([len(np.intersect1d(x, y)) / len(x) for x, y in pairs]))


def table(cuts: Sequence[Cut], free: Sequence[float]) -> str:
    """Figures over all cuts, as lines."""
    units = np.concatenate([cut.margin / max(cut.typical_noise, 1e-12) for cut in cuts])
    flipped = np.concatenate([cut.flipped for cut in cuts])
    bound = max((float((c.margin[c.flipped] / c.noise.max()).max()) for c in cuts if c.flipped.any()), default=0.0)
    lines = [
        f"{len(cuts)} cuts, {len(units)} scores, {flipped.sum()} flipped ({flipped.mean():.2%})",
        f"kept-set overlap: {np.mean([c.overlap for c in cuts]):.3f} at one cut, {np.mean(free):.3f} nothing forced",
        f"log scores, medians over cuts: noise {np.median([c.typical_noise for c in cuts]):.4f}, "
        f"spread {np.median([c.spread for c in cuts]):.3f}",
        f"largest margin of a flipped token: {bound:.2f} x the largest noise of its cut",
    ]
    low = 0.0
    for high in (*BANDS, np.inf):
        inside = (units >= low) & (units < high)
        share = flipped[inside].mean() if inside.any() else 0.0
        lines.append(f"margin {low:g} to {high:g} x typical noise: {inside.sum()} scores, {share:.1%} flipped")
        low = high
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument("--type", default="q8_0")
    args = parser.parse_args()
    source = store.resolve(args.model).model.parent
    cuts, free = list[Cut](), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        quantize(source, Path(folder) / "quantised", args.type)
        with VisionLLM.load(args.model) as own, VisionLLM.load(Path(folder) / "quantised") as other:
            for clip in held_out(args.n):
                path = write_clip(clip, Path(folder) / "clip.mp4")
                found, overlap = compare(own, other, clip.question, [path])
                cuts, free = cuts + found, [*free, overlap]
    print(table(cuts, free))


if __name__ == "__main__":
    main()
