"""What is done to visual tokens when nothing is asked: `auto` for videos of many tokens a frame, and its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from test_ward_ways import clip

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.engine import plan
from aim_local.engine.plan import default_tokens
from aim_local.errors import ModelError
from aim_local.models.rows import RowsTower
from aim_local.reduction.planner import TextShape, layer_counts, layer_shares, merge_count, prefill_flops

AUTO, OFF, PAPER = VisualTokenConfig.auto(), VisualTokenConfig.off(), VisualTokenConfig.paper()


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    """The bundled text model behind a tower that makes 196 tokens of a frame."""
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield VisionLLM(loaded.model.with_tower(RowsTower(loaded.model.text)))


def test_videos_are_reduced_and_nothing_else(llm: VisionLLM) -> None:
    video = clip(4)
    assert default_tokens(llm.model, [video.shape]) == AUTO
    assert default_tokens(llm.model, []) == OFF
    asked = llm.prefill("What?", [video.frames], AUTO)
    found = llm.prefill("What?", [video.frames])
    assert found.stats.n_visual == 4 * 31 + 1
    assert np.array_equal(found.logits, asked.logits)


def test_few_tokens_a_frame_are_kept(llm: VisionLLM) -> None:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as bundled:
        assert default_tokens(bundled.model, [clip(4).shape]) == OFF


def test_where_rows_cannot_be_weighed_they_are_merged_alone(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ModelError("another architecture")

    monkeypatch.setattr(plan, "check_tokens", refused)
    assert default_tokens(llm.model, [clip(4).shape]) == replace(AUTO, weigh="equal")


@pytest.mark.parametrize("n_layer", [24, 28, 32])
@pytest.mark.parametrize("n_frames", [8, 32, 192])
def test_it_costs_no_more_than_the_papers_setting(n_layer: int, n_frames: int) -> None:
    """FLOPs and cells of the language model, 196 tokens a frame, Qwen2-7B's widths."""
    shape = TextShape(n_layer=n_layer, n_embd=3584, n_ff=18944, n_head=28, n_head_kv=4, n_vocab=152064)
    cost = {}
    for name, tokens in (("auto", AUTO), ("paper", PAPER)):
        n = n_frames * merge_count(196, tokens.merge_retain) + 1
        counts = layer_counts(n, layer_shares(tokens, n_layer))
        cost[name] = prefill_flops(shape, 100, counts), sum(counts)
    assert 0.8 < cost["auto"][0] / cost["paper"][0] <= 1.0
    assert 0.8 < cost["auto"][1] / cost["paper"][1] <= 1.0
