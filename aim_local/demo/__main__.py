"""`python -m aim_local.demo`: the bundled model answers one question about each bundled clip, through the whole path.

Prints question, answer and what is right; exits with 1 when the first one, the demo's own question, is wrong.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import aim_local
from aim_local.demo.clips import is_right


def main() -> int:
    folder = Path(aim_local.__file__).parent / "data" / "clips"
    cases = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    results = []
    with aim_local.VisionLLM.load() as llm:
        for case in cases:
            answer = llm.generate(case["question"], [folder / case["clip"]])
            results.append(is_right(answer.text, case["answer"]))
            print(f"{folder / case['clip']}\n  question: {case['question']}\n  answer:   {answer.text}")
            verdict = "right" if results[-1] else f"wrong, it is {case['answer']}"
            stats = answer.stats
            print(f"  {verdict}; {stats.n_visual} visual tokens, first token after {stats.ttft_ms:.0f} ms")
    return 0 if results[0] else 1


if __name__ == "__main__":
    sys.exit(main())
