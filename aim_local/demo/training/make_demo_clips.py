"""Write the clips that ship with the package: four held-out scenes at 224 px, each with one question and its answer.

Usage: python -m aim_local.demo.training.make_demo_clips aim_local/data/clips
"""

import argparse
import json
from pathlib import Path

from aim_local.demo.clips import write_clip
from aim_local.demo.world import HELD_OUT_SEED, Question, Scene, make_scene, questions

FIRST_SEED = HELD_OUT_SEED + 900_000_000  # apart from the scenes that `held_out` scores
WANTED = ("needle", "direction", "order", "time")
SIDE = 224


def pick(family: str, seed: int) -> tuple[int, Scene, Question]:
    """From `seed` on, the first scene of three shapes, movers and flashes, with a question of this family."""
    while True:
        scene = make_scene(seed)
        asked = [q for q in questions(scene) if q.family == family]
        movers = sum(s.moves for s in scene.shapes)
        late = family != "needle" or any("middle" in q.text for q in asked)
        if len(scene.shapes) == 3 and movers in (1, 2) and asked and late:
            return seed + 1, scene, next((q for q in asked if "middle" in q.text + q.answer), asked[-1])
        seed += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    entries, seed = [], FIRST_SEED
    for family in WANTED:
        seed, scene, q = pick(family, seed)
        path = write_clip(scene, args.folder / f"{family}.mp4", side=SIDE)
        entries.append({"clip": path.name, "question": q.text, "answer": q.answer, "family": family})
    (args.folder / "questions.json").write_text(json.dumps(entries, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
