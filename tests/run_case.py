"""What tests of `run` share: a file of questions about the bundled clips, and a worker without a model."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import aim_local
from aim_local.batch.job import Job, Outcome, Settings
from aim_local.batch.questions import Asked, Question, check_clips, read_questions
from aim_local.batch.run import Watch

CLIPS = Path(aim_local.__file__).parent / "data" / "clips"
COMMAND = [sys.executable, "-P", "-c", "from aim_local.cli import main; main()"]

# says every question back, and which clips it saw; "die" ends the process each time, "die once FILE" the first time
FAKE_WORKER = """
import hashlib, os, pathlib
from aim_local.child import Parent

parent = Parent()
inbox = parent.inbox()
job = next(inbox)
if job["name"] == "unloadable":
    os.kill(os.getpid(), 9)
parent.say(ready=True, notes=["loaded"])
for message in inbox:
    question = message["question"]
    words = question["question"].split()
    if words[:2] == ["die", "once"] and not pathlib.Path(words[2]).exists():
        pathlib.Path(words[2]).touch()
        os.kill(os.getpid(), 9)
    if words == ["die"]:
        os.kill(os.getpid(), 9)
    paths = [pathlib.Path(clip["path"]) for clip in question["clips"]]
    seen = [[p.stat().st_size, p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()] for p in paths]
    parent.say(line={"id": question["id"], "text": question["question"]}, facts={"clips": seen})
"""


def environment(home: Path) -> dict[str, str]:
    """For processes of ours: user state goes to `home`."""
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")}
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    return {**os.environ, **folders, "AIM_LOCAL_HOME": str(home / "aim-local"), "PYTHONPATH": path}


def write_questions(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def demo_rows(n: int) -> list[dict[str, Any]]:
    """n questions about the bundled clips; some with frames, a part of the clip or visual tokens of their own."""
    known = json.loads((CLIPS / "questions.json").read_text(encoding="utf-8"))
    own: list[dict[str, Any]] = [{}, {"tokens": "paper"}, {"frames": 4, "id": "four"}, {"start": 0.5}, {"fps": 2.0}]
    rows = []
    for i in range(n):
        row = {"video": str(CLIPS / known[i % 4]["clip"]), "question": known[i % 4]["question"], **own[i % 5]}
        rows.append({**row, "id": f"four-{i}"} if "id" in row else row)
    return rows


def asked(path: Path) -> Asked:
    return check_clips(read_questions(path))


def questions(*texts: str) -> list[tuple[int, Question]]:
    """Without clips, for the worker that needs none."""
    return [(i, Question(n=i + 1, id=str(i + 1), clips=(), question=text)) for i, text in enumerate(texts)]


class At(Watch):
    """Does something when n questions have ended."""

    def __init__(self, n: int, do: Callable[[], None]) -> None:
        self._left, self._do = n, do

    def ended(self, found: Outcome) -> None:
        self._left -= 1
        if self._left == 0:
            self._do()


@contextmanager
def user_folder(home: Path) -> Iterator[None]:
    """For fixtures that live longer than a test: user state goes to `home`."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment(home).items():
            patched.setenv(name, value)
        yield


def fake_job(name: str = "fake") -> Job:
    return Job(name, "model.gguf", None, Settings())


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
