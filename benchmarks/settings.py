"""What reducing visual tokens costs the bundled model: accuracy, agreement, FLOPs and KV cache over held-out clips.

Every setting answers the same clips, written as mp4 and read back once; the vision tower runs once per frame. Prints a
Markdown table. "average pooling" replaces token merging by the mean over each 2 x 2 square of tokens.

  python benchmarks/settings.py [--n 500] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import aim_local.vision
from aim_local import GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local._vision_native import Merged, TileEncoder
from aim_local.demo import held_out, is_right, write_clip
from aim_local.demo.clips import Clip, read_clip
from aim_local.errors import UsageError
from aim_local.planner import paper_layers
from aim_local.stats import Stats

SHORT = GenerateConfig(max_tokens=8)  # room for any answer, and a KV cache that is mostly prompt


@dataclass
class Case:
    clip: Clip
    frames: np.ndarray  # uint8 [8, side, side, 3]


def settings(n_layer: int) -> dict[str, VisualTokenConfig]:
    paper, (_, l2) = VisualTokenConfig.paper(), paper_layers(n_layer)
    named = {
        "full": VisualTokenConfig.off(),
        "merge only, 25 %": VisualTokenConfig(prune_layers=None),
        "prune only": VisualTokenConfig(merge_retain=1.0),
        "paper": paper,
        "late drop": VisualTokenConfig(prune_layers=(l2 - 1, l2)),
        "last_query": replace(paper, importance="last_query"),
        "random": replace(paper, importance="random"),
        "grid": replace(paper, importance="grid"),
        "average pooling": paper,
    }
    return named | {
        f"budget {share:g}": VisualTokenConfig.budget(share) for share in (0.5, 0.25, 0.15, 0.1, 0.05, 0.025)
    }


def pool_squares(rows: np.ndarray, retain: float, _threads: int = 0) -> Merged:
    """Mean over 2 x 2 squares of a square grid of tokens [n, n_embd], in place of merging a quarter."""
    side = math.isqrt(len(rows))
    assert retain == 0.25, "made for a quarter"
    assert side * side == len(rows), "made for a square grid"
    squares = rows.reshape(side // 2, 2, side // 2, 2, -1)
    pooled = squares.mean(axis=(1, 3), dtype=np.float32).reshape(-1, rows.shape[-1])
    return Merged(np.ascontiguousarray(pooled), np.arange(len(pooled), dtype=np.int32), np.zeros(len(rows), np.int32))


@contextmanager
def merging_by(function: Any) -> Iterator[None]:
    own = aim_local.vision.merge_rows
    aim_local.vision.merge_rows = function
    try:
        yield
    finally:
        aim_local.vision.merge_rows = own


def encode_once() -> None:
    """Keeps the vision tower's output per frame: settings differ behind it only."""
    own = TileEncoder.encode

    @cache
    def encode(encoder: TileEncoder, data: bytes, side: int) -> np.ndarray:
        return own(encoder, np.frombuffer(data, np.uint8).reshape(side, side, 3))

    TileEncoder.encode = lambda self, tile: encode(self, tile.tobytes(), tile.shape[0])  # type: ignore[method-assign]


def read_cases(n: int) -> list[Case]:
    with tempfile.TemporaryDirectory() as folder:
        return [Case(clip, read_clip(write_clip(clip, Path(folder) / "clip.mp4"))) for clip in held_out(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    encode_once()
    cases = read_cases(args.n)
    print("| setting | right | agrees with full | visual tokens | FLOPs share | KV KiB |\n|---|---|---|---|---|---|")
    with VisionLLM.load(args.model) as llm:
        full: list[str] = []
        for name, tokens in settings(llm.text.n_layer).items():
            with merging_by(pool_squares if name == "average pooling" else aim_local.vision.merge_rows):
                try:
                    found = [llm.generate(c.clip.question, [c.frames], tokens, SHORT) for c in cases]
                except UsageError as e:
                    print(f"| {name} | {e} | | | | |", flush=True)
                    continue
            answers = [a.text for a in found]
            full = full or answers
            print(row(name, cases, answers, full, [a.stats for a in found]), flush=True)


def row(name: str, cases: list[Case], answers: list[str], full: list[str], stats: list[Stats]) -> str:
    right = mean(is_right(a, c.clip.answer) for a, c in zip(answers, cases, strict=True))
    agrees = mean(a == b for a, b in zip(answers, full, strict=True))
    flops, kv = mean(s.flops_share for s in stats), mean(s.kv_bytes for s in stats) / 1024
    return f"| {name} | {right:.1%} | {agrees:.1%} | {mean(s.n_visual for s in stats):.0f} | {flops:.3f} | {kv:.0f} |"


if __name__ == "__main__":
    main()
