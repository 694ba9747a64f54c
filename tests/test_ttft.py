"""A wanted time to the first token becomes frames and a setting, with made-up rates: what is counted, kept and said."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import plan_case
import pytest

from aim_local import FrameSampling, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.model import Model, open_model
from aim_local.engine.watch import Watch
from aim_local.errors import ContextError, MediaError, ModelError, UsageError
from aim_local.lab.plan import Request, choose_ttft, ttft
from aim_local.lab.plan.pace import Pace, folder, forget_pace, load_pace, pace_facts, save_pace
from aim_local.lab.plan.pacing import measure_pace
from aim_local.lab.plan.ttft import Pacer, TtftChoice, find_pace, review
from aim_local.media.outline import index_media
from aim_local.media.reader import digest_item
from aim_local.media.speed import ReadingSpeed
from aim_local.reduction.planner import encoder_flops
from aim_local.results import Stats

clips = plan_case.clips
model = plan_case.model
TILE_S, ROW_S = 1.0, 1e-11
READING = {"open_s": 0.25, "digest_s": 0.125, "start_s": 0.0, "decoded_s": 0.001, "kept_s": 0.002}


def made_pace(model: Model, **changes: Any) -> Pace:
    """A machine that takes a second for a tile."""
    facts = model.tower.facts if model.tower else None
    assert facts
    tile_flops = encoder_flops(facts.vision, 1)
    rates = {"vision": {"flops": TILE_S / tile_flops}, "prefill": {"row_flops": ROW_S}, "other": {"runs": 0.5}}
    return replace(Pace(rates, 0.5, 0.0, "2026-01-01"), **changes)


def choose(pacer: Pacer, request: Request, seconds: float) -> TtftChoice:
    """Whatever else the machine does."""
    return pacer.choose(request, seconds, choosing_counts=False)


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is read at the same speed."""

    def measured(item: Any, fit: Any, *_: Any) -> Any:
        return index_media(item), ReadingSpeed(digest_item(item), **READING)

    monkeypatch.setattr(ttft, "measure_reading", measured)


def test_the_sum_is_what_the_parts_take(model: Model, clips: list[Path]) -> None:
    """Six frames of tokens off, worked out by hand."""
    request = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=6))
    choice = Pacer(model, made_pace(model)).choose(request, 1e6)
    outline = index_media(clips[0]).outline(request.sampling or FrameSampling())
    reads = (outline.n_decoded + 12 * outline.n_jumps) * 0.001 + 6 * 0.002
    stages = choice.estimate.stages
    assert stages["vision"] == pytest.approx(6 * TILE_S)
    assert choice.n_frames == 6
    expected = 0.25 + max(6.0, reads) + 0.5 * min(6.0, reads) + stages["prefill"] + 0.5
    print(f"\n  off by {abs(choice.estimate.total - expected):.1e} s")
    assert choice.estimate.total == pytest.approx(expected)
    assert stages["decode_video"] + stages["preprocess"] == pytest.approx(0.25 + reads)


def test_more_time_never_gives_less(model: Model, clips: list[Path]) -> None:
    pacer = Pacer(model, made_pace(model))
    found = [choose(pacer, Request("What?", clips[:1]), wanted) for wanted in np.linspace(0.5, 12, 60)]
    frames = [choice.n_frames for choice in found]
    assert frames == sorted(frames)
    assert (frames[0], frames[-1]) == (1, model.default_frames)
    assert len(set(frames)) == model.default_frames
    assert [choice.met for choice in found] == sorted(choice.met for choice in found)
    assert found[-1].setting == "off"
    assert all(choice.predicted_s <= choice.wanted_s for choice in found if choice.met)


def test_what_was_asked_stays(model: Model, clips: list[Path]) -> None:
    """--frames is the most, --tokens is kept; several clips get the same number."""
    tokens, sampling = VisualTokenConfig.fast(), FrameSampling(n_frames=3, start=0.1)
    choice = choose(Pacer(model, made_pace(model)), Request("What?", clips, tokens, sampling), 5.9)
    assert (choice.tokens, choice.setting) == (tokens, "")
    assert choice.sampling == FrameSampling(n_frames=2, start=0.1)
    assert choice.estimate.stages["vision"] == pytest.approx(4 * TILE_S)


def test_a_time_that_cannot_be_met(model: Model, clips: list[Path]) -> None:
    choice = Pacer(model, made_pace(model)).choose(Request("What?", clips[:1]), 0.1)
    assert not choice.met
    assert choice.n_frames == 1
    assert choice.predicted_s > 0.1


def test_pictures_and_arrays(model: Model) -> None:
    pacer = Pacer(model, made_pace(model))
    picture, frames = np.zeros((40, 60, 3), np.uint8), np.zeros((5, 32, 32, 3), np.uint8)
    choice = pacer.choose(Request("What?", [picture]), 1e6)
    assert (choice.n_frames, choice.sampling, choice.setting) == (0, None, "off")
    assert pacer.choose(Request("What?", [frames]), 1e6).estimate.stages["vision"] == pytest.approx(5 * TILE_S)


def test_errors(model: Model, clips: list[Path], tmp_path: Path) -> None:
    pacer = Pacer(model, made_pace(model))
    for request, seconds, error in (
        (Request("What?"), 1.0, UsageError),
        (Request("What?", clips[:1]), 0.0, UsageError),
        (Request("What?", [tmp_path / "none.mp4"]), 1.0, MediaError),
        (Request("what " * 5000, clips[:1]), 1.0, ContextError),
    ):
        with pytest.raises(error):
            pacer.choose(request, seconds)


def test_frames_that_do_not_fit_the_context(clips: list[Path]) -> None:
    with closing(open_model(config=LoadConfig(n_ctx=64), weights=False)) as small:
        request = Request("What?", clips[:1], VisualTokenConfig.off(), FrameSampling(n_frames=30), n_answer=1)
        choice = Pacer(small, made_pace(small)).choose(request, 1e6)
    assert 1 <= choice.n_frames < 30


# --- a stored clip ---------------------------------------------------------------------------------------------------


def test_a_stored_clip_is_neither_decoded_nor_encoded(clips: list[Path]) -> None:
    request = Request("What?", clips[:1])
    with VisionLLM.load() as llm:
        pacer = Pacer(llm.model, made_pace(llm.model))
        assert choose(pacer, request, 3.0).n_frames < 7
        llm.prefill("Another?", clips[:1], sampling=FrameSampling(n_frames=7))
        choice = choose(pacer, request, 3.0)
        assert (choice.n_frames, choice.estimate.n_stored) == (7, 1)
        assert (choice.estimate.stages["vision"], choice.estimate.stages["decode_video"]) == (0, 0.125)
        answer = llm.prefill("What?", clips[:1], choice.tokens, sampling=choice.sampling)
        assert answer.stats.n_tiles_cached == 7
        off = Pacer(llm.model.with_config(LoadConfig(cache_media=False)), pacer.pace)
        assert choose(off, request, 3.0).estimate.n_stored == 0


# --- the pace as a file ----------------------------------------------------------------------------------------------


def test_pace_is_kept_and_holds_with_and_without_weights(model: Model) -> None:
    assert find_pace(model) is None
    with VisionLLM.load() as llm:
        pace = made_pace(llm.model)
        save_pace(pace_facts(llm.model), pace)
    assert find_pace(model) == pace


@pytest.mark.parametrize("name", [f.name for f in fields(LoadConfig) if f.name not in ("n_ctx", "n_threads")])
def test_options_that_change_the_speed_are_part_of_it(model: Model, name: str) -> None:
    """Whatever options there are: one that is new counts, until it is said that it does not."""
    others = {"n_ubatch": 64, "n_gpu_layers": 3, "type_k": "f32", "type_v": "f32", "flash_attn": True}
    others |= {"vision_precision": "exact", "prefill_precision": "exact", "cache_media": False, "reuse_frames": "equal"}
    others |= {
        "vision_merge": 0.5,
        "vision_merge_depth": 0.3,
        "frame_tokens": 40,
        "rpc": ("localhost:50052",),
        "max_pixels": 1 << 20,
    }
    before = model.with_config(replace(model.config, n_gpu_layers=-1))  # without layers elsewhere, there is no rpc
    changed = model.with_config(replace(before.config, **{name: others[name]}))
    assert (pace_facts(changed) == pace_facts(before)) == (name in ("cache_media", "reuse_frames", "max_pixels"))


def test_stale_foreign_and_damaged_paces_are_not_used(model: Model) -> None:
    facts = pace_facts(model)
    path = save_pace(facts, made_pace(model))
    assert load_pace(facts)
    for part, key in (("machine", "processor"), ("machine", "aim_local"), ("vision", "libraries"), ("vision", "cpu")):
        assert load_pace({**facts, part: {**facts[part], key: "another"}}) is None
    good = json.loads(path.read_text())
    damaged: list[Any] = [{**good, "format": 0}, {**good, "pace": {"beside": 1}}, []]
    damaged += [{**good, "pace": {**good["pace"], "beside": number}} for number in (-1, math.nan, "x")]
    for data in (*damaged, None):
        path.write_text(json.dumps(data) if data is not None else "no JSON")
        assert load_pace(facts) is None
    forget_pace(facts)
    assert not list(folder().iterdir())
    forget_pace(facts)


def test_a_pace_that_no_longer_holds_is_forgotten(model: Model, clips: list[Path]) -> None:
    choice = Pacer(model, made_pace(model)).choose(Request("What?", clips[:1]), 5.0)

    def is_forgotten(share: float, **counts: int) -> bool:
        save_pace(pace_facts(model), made_pace(model))
        stats = Stats(ttft_ms=(share * choice.predicted_s - choice.spent_s) * 1000, **counts)
        found = review(model, choice, stats)
        assert found == (find_pace(model) is None)
        return found

    assert [is_forgotten(share) for share in (0.7, 0.8, 1.2, 1.3)] == [True, False, False, True]
    assert not is_forgotten(0.1, n_tiles_near=2)
    assert is_forgotten(2.0, n_tiles_near=2)


def test_text_only_model(tmp_path: Path, model: Model) -> None:
    (tmp_path / "text.gguf").write_bytes(model.paths.model.read_bytes())
    with (
        closing(open_model(tmp_path / "text.gguf", weights=False)) as text,
        pytest.raises(ModelError, match="text-only"),
    ):
        find_pace(text)


# --- measuring -------------------------------------------------------------------------------------------------------


def test_measuring(clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of runs: all parts are there, and a choice made with them is run as it says."""
    with VisionLLM.load() as llm:
        pace = measure_pace(llm.model, Watch(), seconds=0.0)
        assert pace.rates["vision"]["flops"] > 0
        assert sum(pace.rates["prefill"].values()) > 0
        assert 0 <= pace.beside <= 1
        assert pace.stored_s > 0
        monkeypatch.setattr(ttft, "measure_pace", lambda *_: pace)
        choice: TtftChoice = choose_ttft(llm, Request("What?", clips[:1]), 100.0)
        assert find_pace(llm.model) == pace
        stats = llm.prefill("What?", clips[:1], choice.tokens, sampling=choice.sampling).stats
        assert stats.n_frames == choice.n_frames
        found = choice.to_dict(stats)
    assert json.loads(json.dumps(found)) == found
    assert found["measured_ms"] == pytest.approx(choice.spent_s * 1000 + stats.ttft_ms)
