"""The bundled model on its held-out clips, through the whole runtime: mp4 files in, answers out.

Prints accuracy over all and per family beside the majority baseline (always the family's most frequent answer).

  python benchmarks/held_out.py [--n 500] [--model FOLDER] [--answers FILE.jsonl]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from aim_local import VisionLLM
from aim_local.demo import held_out, is_right, write_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument("--answers", type=Path, help="write every question and answer here")
    args = parser.parse_args()
    right: dict[str, list[bool]] = defaultdict(list)
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    records = []
    with VisionLLM.load(args.model) as llm, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for clip in held_out(args.n):
            write_clip(clip, path)
            answer = llm.generate(clip.question, [path])
            right[clip.family].append(is_right(answer.text, clip.answer))
            expected[clip.family][clip.answer] += 1
            records.append(
                {"family": clip.family, "question": clip.question, "expected": clip.answer, "answer": answer.text}
            )
    if args.answers:
        args.answers.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    report(right, expected)


def report(right: dict[str, list[bool]], expected: dict[str, Counter[str]]) -> None:
    print(f"{'family':<12}{'clips':>6}{'right':>8}{'majority':>10}")
    majority = {family: counts.most_common(1)[0][1] for family, counts in expected.items()}
    for family, results in sorted(right.items()):
        n = len(results)
        print(f"{family:<12}{n:>6}{sum(results) / n:>8.1%}{majority[family] / n:>10.1%}")
    n = sum(len(results) for results in right.values())
    total = sum(sum(results) for results in right.values())
    print(f"{'all':<12}{n:>6}{total / n:>8.1%}{sum(majority.values()) / n:>10.1%}")


if __name__ == "__main__":
    main()
