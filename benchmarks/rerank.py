"""Time of a second question about a clip, beside the first one's: ranked again, and with the first survivors.

The conversation is saved after the first answer, so that the clip is encoded once for both. The first question's time
has decoding and encoding of the clip in it; "language model" is the prefill alone. Random weights answer nonsense,
which takes as long as sense.

  python benchmarks/rerank.py [--model FOLDER | --shape 0.5b] [--frames 8] [--rounds 5] [--warm-up 1]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from aim_local import FrameSampling, GenerateConfig, LoadConfig, Stats, VisionLLM, VisualTokenConfig
from aim_local.lab.bench.cache import random_model, synthetic_clip
from aim_local.lab.bench.shapes import parse_shape

FIRST, SECOND = "What happens in this clip, from its beginning to its end?", "Which colour has the object that moves?"
ROWS = ("first question", "second, ranked again", "second, first survivors")


def converse(llm: VisionLLM, folder: Path, n_frames: int, n_answer: int) -> tuple[Stats, Stats, Stats]:
    """The stats of a first question, and of a second one that ranks again and that does not."""
    options, sampling = GenerateConfig(max_tokens=n_answer), FrameSampling(n_frames=n_frames)
    with llm.chat(VisualTokenConfig.paper(), generate=options, sampling=sampling) as chat:
        first = chat.ask(FIRST, [synthetic_clip(n_frames)]).stats
        saved = chat.save(folder / "talk.aimchat")
        again = chat.ask(SECOND).stats
    with llm.load_chat(saved, rerank=False) as chat:
        return first, again, chat.ask(SECOND).stats


def report(first: Sequence[Stats], again: Sequence[Stats], kept: Sequence[Stats]) -> None:
    base = [median(s.ttft_ms for s in first), median(s.prefill_ms for s in first)]
    one, two = first[0], again[0]
    print(f"{one.n_visual} visual and {one.n_text} text tokens, then {two.n_text} more")
    print(f"KV cache {two.kv_bytes / 1e6:.1f} MB, rows held to rank again {two.held_bytes / 1e6:.1f} MB\n")
    print("| | first token ms | of first | language model ms | of first | scoring ms | FLOPs of first |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, runs in zip(ROWS, (first, again, kept), strict=True):
        ttft, llm = median(s.ttft_ms for s in runs), median(s.prefill_ms for s in runs)
        spread = f"{min(s.ttft_ms for s in runs):.0f}-{max(s.ttft_ms for s in runs):.0f}"
        share = runs[0].flops / first[0].flops
        scoring = median(s.importance_ms for s in runs)
        print(
            f"| {name} | {ttft:.0f} ({spread}) | {ttft / base[0]:.1%} | {llm:.0f} | {llm / base[1]:.1%} | "
            f"{scoring:.0f} | {share:.1%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--shape")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answer", type=int, default=32, help="tokens of the first answer")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    model, mmproj = args.model, None
    if args.shape:
        paths = random_model(parse_shape(args.shape), "q4_0", "f16", print)
        model, mmproj = paths.model, paths.mmproj
    found = []
    with (
        VisionLLM.load(model, mmproj, LoadConfig(n_threads=args.threads, cache_media=False)) as llm,
        tempfile.TemporaryDirectory() as folder,
    ):
        for _ in range(args.warm_up + args.rounds):
            found.append(converse(llm, Path(folder), args.frames, args.answer))
    report(*zip(*found[args.warm_up :], strict=True))


if __name__ == "__main__":
    main()
