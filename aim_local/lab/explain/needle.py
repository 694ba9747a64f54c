"""Does pruning keep what the question asks about? Needle clips of the demo world, where that is known.

A needle question asks for the shape that appears at the start, in the middle or at the end. The scene tells in which
frames it is visible, and drawing the clip with and without it tells which patches it covers. Of the visual tokens that
survive into a layer, the share that is the needle's is set against the share expected by chance: the needle's share of
all tokens before pruning. And by where in the clip the needle appears: which share of its tokens is kept, beside that
of all tokens; a ranking that prefers early tokens keeps more of a needle at the start than of one at the end. Newline
rows cover nothing and are not counted. How it is written: needle_tables.py.

  python -m aim_local.lab.explain.needle [--n 100] [--model MODEL] [--tokens paper] [--json] [--html FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...config import IMPORTANCE, VisualTokenConfig
from ...demo import FAMILIES, Clip, Shape, draw, held_out, write_clip
from ...drawing.layers import stage_layers, tokens_of
from ...errors import AimError, UsageError
from ...models.pieces import TokenGrid
from ...results import Trace
from ...settings import parse_setting
from .needle_tables import Measured, Place, Row, text, write_page

if TYPE_CHECKING:
    from ...llm import VisionLLM

COVERED = 0.05  # share of a patch's pixels that a shape must change for the patch to be its own
_CHANGED = 24  # grey levels: more than a background's gradient, less than any shape's contrast
_Z95 = 1.96
_MIN_CLIPS = 2  # for an interval

KINDS = ("frames", "patches")


def measure(
    llm: VisionLLM, clips: Sequence[Clip], tokens: VisualTokenConfig, rankings: Sequence[str] = IMPORTANCE
) -> Measured:
    """Every ranking on the same clips."""
    found: dict[tuple[str, int, str], list[tuple[float, float, int]]] = {}
    by_part: dict[tuple[str, int, str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, clip in enumerate(clips):
            path = write_clip(clip, Path(folder) / "clip.mp4")
            for how in rankings:
                trace = llm.prefill(clip.question, [path], replace(tokens, importance=how, seed=i)).trace
                for layer, kind, *values in shares(trace, clip):
                    found.setdefault((how, layer, kind), []).append((values[0], values[1], int(values[2])))
                for layer, kind, *kept in survival(trace, clip):
                    by_part.setdefault((how, layer, kind, needle(clip).part), []).append((kept[0], kept[1]))
    places = [make_place(*key, np.array(values)) for key, values in by_part.items()]
    return Measured([make_row(*key, np.array(values)) for key, values in found.items()], places)


def needle_clips(n: int, seed: int = 0) -> list[Clip]:
    """The first n held-out clips with a needle question."""
    if n < _MIN_CLIPS:
        raise UsageError(f"n is {n}; give {_MIN_CLIPS} clips or more, an interval needs them")
    every = held_out(n * len(FAMILIES), seed)
    return list(islice((clip for clip in every if clip.family == "needle"), n))


def needle(clip: Clip) -> Shape:
    """The shape that is the answer."""
    return next(shape for shape in clip.scene.shapes if shape.name == clip.answer)


def shares(trace: Trace, clip: Clip) -> Iterator[tuple[int, str, float, float, float]]:
    """(layer, kind, share among survivors, share by chance, survivors) for each pruned layer with survivors.

    A needle that every token belongs to (a mover seen in all frames), or none, says nothing and is left out.
    """
    for il, kind, mine, seen, kept in _survivors(trace, clip):
        yield il, kind, float(mine[kept].mean()), float(mine.sum() / seen.sum()), float(len(kept))


def survival(trace: Trace, clip: Clip) -> Iterator[tuple[int, str, float, float]]:
    """(layer, kind, share of the needle's tokens that is kept, of all tokens) for each pruned layer with survivors.

    For the clips and layers of `shares`.
    """
    for il, kind, mine, seen, kept in _survivors(trace, clip):
        yield il, kind, float(mine[kept].sum() / mine.sum()), float(len(kept) / seen.sum())


def _survivors(
    trace: Trace, clip: Clip
) -> Iterator[tuple[int, str, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.integer[Any]]]]:
    """(layer, kind, the needle's tokens, tokens that cover anything, of these the indices of those that survive)."""
    for kind in KINDS:
        mine, seen = needle_tokens(trace, clip, kind)
        if not 0 < mine.sum() < seen.sum():
            continue
        for il in stage_layers(trace)[1:]:
            kept = trace.kept[il][seen[trace.kept[il]]]
            if len(kept):
                yield il, kind, mine, seen, kept


def needle_tokens(trace: Trace, clip: Clip, kind: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two masks [n tokens]: the needle's tokens, and all that cover anything."""
    mine, seen = np.zeros(len(trace.groups), np.bool_), np.zeros(len(trace.groups), np.bool_)
    for grid in trace.grids:
        seen[tokens_of(grid)] = True
        if kind == "frames" and needle(clip).visible(grid.index):
            mine[tokens_of(grid)] = True
        if kind == "patches":
            mine[grid.owners[covered_slots(clip, grid)]] = True
    return mine, seen


def covered_slots(clip: Clip, grid: TokenGrid) -> NDArray[np.bool_]:
    """[rows, cols]: slots that the needle covers in this frame, from the clip drawn with and without it."""
    rows, cols = grid.owners.shape
    return _covered(clip, grid.index, rows, cols)


@lru_cache(maxsize=64)  # a clip's frames, which every ranking asks for
def _covered(clip: Clip, frame: int, rows: int, cols: int) -> NDArray[np.bool_]:
    shape = needle(clip)
    if not shape.visible(frame):
        return np.zeros((rows, cols), np.bool_)
    without = replace(clip.scene, shapes=tuple(s for s in clip.scene.shapes if s is not shape))
    side = 28 * rows
    pair = [draw(scene, side, [frame])[0].astype(int) for scene in (clip.scene, without)]
    changed = np.abs(pair[0] - pair[1]).max(-1) > _CHANGED  # [side, side]
    slots = changed.reshape(rows, side // rows, -1)[:, :, : side // cols * cols].reshape(rows, side // rows, cols, -1)
    return np.asarray(slots.mean((1, 3)) >= COVERED)


def make_row(how: str, layer: int, kind: str, values: NDArray[np.float64]) -> Row:
    """values: float64 [clips, 3], share, chance and survivors of each clip."""
    share, chance, kept = values.T
    differences = share - chance
    mean, half = float(differences.mean()), _half(differences)
    means = (float(kept.mean()), float(share.mean()), float(chance.mean()))
    return Row(how, layer, kind, len(differences), *means, mean, mean - half, mean + half)


def make_place(how: str, layer: int, kind: str, part: str, values: NDArray[np.float64]) -> Place:
    """values: float64 [clips, 2], share kept of the needle's tokens and of all, of each clip."""
    kept, of_all = values.T
    mean, half = float(kept.mean()), _half(kept)
    return Place(
        how, layer, kind, part, len(kept), mean, max(0.0, mean - half), min(1.0, mean + half), float(of_all.mean())
    )


def _half(values: NDArray[np.float64]) -> float:
    """Half of the mean's 95 % interval; of a single value nothing is known, which is said as the whole range."""
    return float(_Z95 * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 1.0


# --- the command ------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="clips")
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument("--tokens", default="paper", help="setting; its ranking is replaced by each ranking in turn")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--html", type=Path, help="a page with the same tables, beside what is printed")
    args = parser.parse_args(argv)
    try:
        if args.html:
            with _writing(args.html):
                args.html.parent.mkdir(parents=True, exist_ok=True)
        found = _measured(args)
        if args.html:
            with _writing(args.html):
                write_page(found, args.html)
    except AimError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    print(json.dumps(asdict(found), indent=2, allow_nan=False) if args.json else text(found))
    return 0


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises UsageError where the page cannot be written: told before anything is measured, as far as that shows."""
    try:
        yield
    except OSError as e:
        raise UsageError(f"--html {path}: cannot be written ({e.strerror}); name another file") from e


def _measured(args: Any) -> Measured:
    from ...llm import VisionLLM

    tokens = parse_setting(args.tokens)
    if not tokens.prunes:
        raise UsageError(f"--tokens {args.tokens} prunes nothing, so there are no survivors to count; give paper")
    clips = needle_clips(args.n)
    with VisionLLM.load(args.model) as llm:
        found = measure(llm, clips, tokens)
    if not found.shares:
        raise UsageError(f"--tokens {args.tokens} leaves no pruned layer with visual tokens; give paper")
    return found


if __name__ == "__main__":
    sys.exit(main())
