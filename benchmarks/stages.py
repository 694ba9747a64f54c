"""Time per stage of one question about one clip: medians over several runs, after a warm-up.

python benchmarks/stages.py [--model FOLDER] [--video CLIP] [--frames N] [--runs 9]
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from statistics import median

import aim_local
from aim_local import FrameSampling, VisionLLM
from aim_local.stats import STAGES, Stats

CLIP = Path(aim_local.__file__).parent / "data" / "clips" / "needle.mp4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument("--video", type=Path, default=CLIP)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    with VisionLLM.load(args.model) as llm:
        sampling = FrameSampling(n_frames=args.frames or llm.default_frames)
        runs = [
            llm.generate("What appears in the middle?", [args.video], sampling=sampling) for _ in range(args.runs + 1)
        ]
    print_table([run.stats for run in runs[1:]])


def print_table(runs: list[Stats]) -> None:
    first = runs[0]
    print(f"{platform.machine()}, {platform.system()}; median (min to max) of {len(runs)} runs")
    print(f"{first.n_frames} frames, {first.n_visual} visual and {first.n_text} text tokens")
    print("| stage | ms |\n|---|---|")
    for name in (*STAGES, "ttft"):
        values = [getattr(run, f"{name}_ms") for run in runs]
        if max(values) > 0:
            print(f"| {name} | {median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")


if __name__ == "__main__":
    main()
