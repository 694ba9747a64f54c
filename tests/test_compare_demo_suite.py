"""The drawn demo suite: its clips, the seed, and a drawing that is interrupted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import suite_files
from suite_files import QUESTION, write

from aim_local.demo import FAMILIES, WORLDS, held_out, read_clip, sampled_frames, write_clip
from aim_local.errors import SuiteError, UsageError
from aim_local.lab.compare import demo_suite
from aim_local.lab.compare.records import Suite
from aim_local.lab.compare.suite import draw_demo_suite, find_suite, load_suite

folder = suite_files.folder


def test_the_demo_suite_is_the_held_out_clips(tmp_path: Path) -> None:
    path = draw_demo_suite(tmp_path / "new" / "demo", 12, 3)
    suite = find_suite(tmp_path / "new" / "demo")
    assert path == tmp_path / "new" / "demo" / "suite.jsonl"
    assert suite.name == "demo"
    clips = list(held_out(12, 3))
    assert [(i.question, i.answer, i.tags) for i in suite.items] == [(c.question, c.answer, (c.family,)) for c in clips]
    assert {i.tags[0] for i in suite.items} == set(FAMILIES[:12])
    drawn, truth = read_clip(suite.items[5].media[0]), clips[5].frames()[sampled_frames()]
    assert abs(drawn.astype(int) - truth).mean() < 4  # what the codec loses


def test_the_same_seed_gives_the_same_suite_and_another_one_another(tmp_path: Path) -> None:
    def of(name: str, seed: int) -> Suite:
        return load_suite(draw_demo_suite(tmp_path / name, 4, seed))

    assert of("a", 0).sha256 == of("b", 0).sha256
    assert of("a", 0).sha256 != of("c", 1).sha256


def test_a_clip_has_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    """x264's default paths look at memory that was used before: a resumed drawing would be another suite."""
    clip = list(held_out(8))[7]
    rng, used = np.random.default_rng(0), []
    seen = set()
    for _ in range(40):
        used = [*used[-20:], rng.integers(0, 255, rng.integers(10, 60_000), dtype=np.uint8)]
        seen.add(hashlib.sha256(write_clip(clip, tmp_path / "clip.mp4").read_bytes()).hexdigest())
    assert len(seen) == 1


def test_an_interrupted_drawing_is_completed_and_a_complete_one_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def interrupted(clip: Any, path: Path, side: int) -> Path:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_clip(clip, path, side=side)

    monkeypatch.setattr(demo_suite, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_demo_suite(tmp_path, 5)
    assert not (tmp_path / "suite.jsonl").exists()
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "clips").iterdir()}
    assert len(first) == 3

    monkeypatch.setattr(demo_suite, "write_clip", write_clip)
    suite = load_suite(draw_demo_suite(tmp_path, 5))
    assert len(suite.items) == 5
    assert {p: p.stat().st_mtime_ns for p in first} == first
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    draw_demo_suite(tmp_path, 5)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == stamps
    suite.items[2].media[0].unlink()  # a clip lost later is drawn again
    assert load_suite(draw_demo_suite(tmp_path, 5)).sha256 == suite.sha256


def test_a_drawn_suite_is_replaced_but_never_somebodys_own(folder: Path) -> None:
    draw_demo_suite(folder, 3)
    assert len(load_suite(draw_demo_suite(folder, 2)).items) == 2
    own = write(folder, QUESTION, name="suite.jsonl")
    with pytest.raises(SuiteError, match="is no drawn demo suite; it is left alone"):
        draw_demo_suite(folder, 2)
    assert json.loads(own.read_text()) == QUESTION


def test_faults_of_drawing(tmp_path: Path) -> None:
    for n, seed in ((0, 0), (1, -1)):
        with pytest.raises(UsageError, match="1 or more clips and a seed of 0 or more"):
            draw_demo_suite(tmp_path, n, seed)
    (tmp_path / "file").touch()
    with pytest.raises(SuiteError, match="file: the demo suite cannot be written"):
        draw_demo_suite(tmp_path / "file", 1)


def test_a_varied_suite_is_drawn_at_its_own_side(tmp_path: Path) -> None:
    world = WORLDS["varied"]
    suite = load_suite(draw_demo_suite(tmp_path, 9, world=world))
    clips = list(held_out(9, world=world))
    assert [q.question for q in suite.items] == [clip.question for clip in clips]
    assert read_clip(suite.items[0].media[0], sampled=False).shape == (16, 168, 168, 3)
    assert clips != list(held_out(9))
