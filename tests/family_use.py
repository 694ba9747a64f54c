"""What people do with a family's model beside asking it: plan, explain, go on with a saved chat, ask a second time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_case import F32, OFF, Case, same_pixels, source_of, theirs
from family_checkpoints import clip, picture
from family_prompts import ASK, drawn_clips, drawn_pictures
from PIL import Image as Picture

from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.drawing.layers import tokens_of
from aim_local.engine import intake
from aim_local.engine.model import open_model
from aim_local.lab.explain import explain
from aim_local.lab.plan import Request, make_plan
from aim_local.models.parts import PartTower
from aim_local.models.rows import RowsTower

SHORT = GenerateConfig(max_tokens=6)
CLIP = clip(5, 240, 320, fps=1.0)


def check_pixels(case: Case, **whole: Any) -> None:
    """Of pictures and frames as PIL's processor has them; torch's processor of videos rounds otherwise, by a level.

    whole: options of that processor for a picture that is not cut.
    """
    theirs(case, *drawn_pictures(0, 10))
    for messages, (item,) in drawn_clips(1, 4):
        shown = [Picture.fromarray(frame) for frame in item.frames]
        inputs = dict(case.loaded.processor.image_processor(images=shown, return_tensors="pt", **whole))
        assert same_pixels(case, inputs, [item]).max() < 0.01
        if case.loaded.has_videos:
            apart = same_pixels(case, case.loaded.inputs(messages, clips=[item]), [item])
            assert (apart > 1.001).mean() < 1e-3


def media_of(case: Case, folder: Path) -> list[Path]:
    """A clip, and a picture of several squares where the family makes them."""
    path = folder / "picture.png"
    picture(100, 160).save(path)
    found = source_of(case, CLIP)
    assert isinstance(found, Path)
    return [found, path]


def check_plan(case: Case, tokens: VisualTokenConfig, folder: Path) -> None:
    """Without weights it counts what a prefill then reports."""
    media, paths = media_of(case, folder), case.llm.model.paths
    want = case.llm.prefill(ASK, media, tokens).stats
    with closing(open_model(paths.model, paths.mmproj, LoadConfig(**F32), weights=False)) as model:
        sizes = make_plan(model, Request(ASK, media, tokens)).outcome.sizes
    assert (sizes.n_visual, sizes.n_visual_full, sizes.n_text) == (want.n_visual, want.n_visual_full, want.n_text)
    assert want.n_visual < want.n_visual_full


def check_explain(case: Case, tokens: VisualTokenConfig, folder: Path) -> None:
    """Every token covers slots of its own square, in its own place, and frames have their times."""
    trace = explain(case.llm, ASK, media_of(case, folder), tokens, generate=SHORT).trace
    covered = np.concatenate([tokens_of(grid) for grid in trace.grids])
    assert sorted(covered) == list(range(len(trace.groups)))
    for grid in trace.grids:
        for token in tokens_of(grid):
            group = trace.groups[token]
            assert (group.media, group.frame) == (grid.media, grid.frame)
            assert grid.owners.ravel()[group.slot] == token
    assert [grid.timestamp for grid in trace.grids if grid.media == 0] == [0.0, 1.0, 2.0, 3.0, 4.0]
    names = [grid.name for grid in trace.grids if grid.media == 1]
    assert len(set(names)) == len(names)
    assert names[-1] == "image"


def check_chat(case: Case, tokens: VisualTokenConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved conversation goes on as if it had not been, without its media."""
    saved = folder / "talk.aimchat"
    with case.llm.chat(tokens, generate=SHORT) as chat:
        chat.ask(ASK, media_of(case, folder))
        chat.ask("And its colour?")
        chat.save(saved)
        want = chat.ask("Where does it go?")
    with monkeypatch.context() as patch:
        patch.setattr(PartTower, "encode", None)
        with case.llm.load_chat(saved) as chat:
            got = chat.ask("Where does it go?")
    assert (got.text, got.tokens) == (want.text, want.tokens)
    assert got.stats.n_prompt == want.stats.n_prompt < 60  # the new turn alone


def check_cached(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time nothing is encoded and no video decoded, and the answer is the same bit for bit."""
    (video, still), paths = media_of(case, folder), case.llm.model.paths
    config = replace(LoadConfig(**F32), cache_media=True)

    def asked(*media: Path) -> Any:
        with VisionLLM.load(paths.model, paths.mmproj, config=config) as llm:
            return llm.prefill(ASK, media)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("opened again")

    first, second = asked(video, still), asked(video, still)
    n = first.stats.n_tiles_encoded
    assert (second.stats.n_tiles_encoded, second.stats.n_tiles_cached) == (0, n)
    assert n > 5
    assert np.array_equal(first.logits, second.logits)
    monkeypatch.setattr(intake, "open_item", never)  # a picture is read, to see whether it is the same
    assert asked(video).stats.n_tiles_cached == 5


def check_without_vision(case: Case) -> None:
    """What `bench --skip-vision` measures: as many rows as the tower makes, through the model's own template."""
    model, tower = case.llm.model, case.llm.model.tower
    assert tower is not None
    facts = tower.facts
    assert facts is not None
    rows = VisionLLM(model.with_tower(RowsTower.like(tower, model.text)))
    for n in (1, 4, 5):
        frames = np.zeros((n, facts.height, facts.width, 3), np.uint8)  # of the tower's usual size
        for tokens in (OFF, VisualTokenConfig(prune_layers=None)):
            want, got = case.llm.prefill(ASK, [frames], tokens).stats, rows.prefill(ASK, [frames], tokens).stats
            assert (got.n_visual, got.n_visual_full) == (want.n_visual, want.n_visual_full)
