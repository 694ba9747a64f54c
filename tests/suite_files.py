"""Files of questions for tests of suites: written, with media that are only bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aim_local.lab.compare.records import Item
from aim_local.lab.compare.suite import load_suite

QUESTION = {"media": "a.mp4", "question": "What is shown?"}
CHOICES = {**QUESTION, "choices": ["a cat", "a dog", "no animal"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(f"bytes of {name}".encode())
    return tmp_path


def write(folder: Path, *rows: dict[str, Any] | str, name: str = "animals.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def one(folder: Path, row: dict[str, Any]) -> Item:
    return load_suite(write(folder, row)).items[0]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root
