"""Files of questions: lines of `run`, suites of `compare`, annotations of published benchmarks; each with its media."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

from media_fixtures import write_clip

from fuzz.damage import damage_bytes, damage_json, json_text
from fuzz.outcome import fault_of_line

SUFFIXES = (".run.jsonl", ".suite.jsonl", ".videomme.jsonl", ".json")
SHORT = 80
RUN = [
    {"id": "a", "video": "v.mp4", "question": "What?", "frames": 4, "start": 0.5, "end": 1.5, "tokens": "paper"},
    {"image": ["p.png", "p.png"], "question": "And?", "max_tokens": 5, "system": "Be brief."},
    {"media": "v.mp4", "question": "How many?", "fps": 2.0},
]
SUITE = [
    {
        "id": "x",
        "media": "v.mp4",
        "question": "Which?",
        "choices": ["a cat", "a dog"],
        "answer": "B",
        "tags": ["animal"],
    },
    {"media": ["v.mp4", "p.png"], "question": "What?", "answer": "a cat", "start": 0, "end": 1},
]
VIDEOMME = [
    {"video_id": "1", "duration": "short", "domain": "Knowledge", "sub_category": "Art", "url": "https://x/watch?v=v",
     "videoID": "v", "question_id": "1-1", "task_type": "Counting", "question": "How many?",
     "options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."], "answer": "C"},
]  # fmt: skip
MVBENCH = [{"video": "v.mp4", "question": "Which way?", "candidates": ["left", "right"], "answer": "left"}]


def seeds(folder: Path) -> list[Path]:
    files = {"a.run.jsonl": RUN, "a.suite.jsonl": SUITE, "a.videomme.jsonl": VIDEOMME}
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "moving_direction.json").write_text(json.dumps(MVBENCH))
    return [*(folder / name for name in files), folder / "moving_direction.json"]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One line's JSON, or the text of all."""
    lines = data.splitlines(keepends=True)
    if not lines or rng.random() < 0.1:
        return damage_bytes(data, rng)
    at = rng.randrange(len(lines))
    match rng.randrange(12):
        case 0:
            return b"".join([*lines[:at], json_text(rng.choice((None, 1, "x", [], {})), rng), b"\n", *lines[at:]])
        case 1:
            return data + lines[at]
        case _:
            lines[at] = damage_json(lines[at], rng).replace(b"\n", b" ") + b"\n"
            return b"".join(lines)


def read(path: Path) -> None:
    from aim_local.batch.questions import check_clips, read_questions, refuse_bad
    from aim_local.lab.compare.suite import find_suite, prompt_of

    folder = Path(tempfile.mkdtemp())
    try:
        media(folder)
        name = "moving_direction.json" if path.suffix == ".json" else "suite.jsonl"
        file = shutil.copy(path, folder / name)
        if path.name.endswith(".run.jsonl"):
            asked = check_clips(read_questions(file))
            assert not any(fault_of_line(line.reason) for line in asked.bad), asked.bad
            assert len(asked.sha256) == 64
            refuse_bad(file, asked)
            return
        published = not path.name.endswith(".suite.jsonl")
        for item in find_suite(file, folder if published else None).items:
            assert prompt_of(item)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_made: dict[str, Path] = {}


def media(folder: Path) -> None:
    """v.mp4 and p.png, made once a process."""
    from PIL import Image

    if not _made:
        home = Path(tempfile.mkdtemp())
        Image.new("RGB", (32, 24), "red").save(home / "p.png")
        write_clip(home / "v.mp4", n_frames=8)
        _made.update({name: home / name for name in ("v.mp4", "p.png")})
    for name, file in _made.items():
        (folder / name).symlink_to(file)
    (folder / "clevrer").mkdir()
    (folder / "clevrer" / "video_validation").symlink_to(folder)
