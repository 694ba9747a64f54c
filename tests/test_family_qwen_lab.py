"""`plan`, `explain` and `bench --skip-vision` of Qwen-VL count what a prompt then has."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import qwen_case
from family_case import F32, Case
from family_use import check_without_vision
from qwen_case import ASKED

from aim_local import LoadConfig, VisualTokenConfig
from aim_local.engine.model import open_model
from aim_local.lab.bench.session import Session
from aim_local.lab.explain import explain
from aim_local.lab.explain.report import report
from aim_local.lab.plan import Request
from aim_local.lab.plan.request import outline_all, work_out
from aim_local.store.names import ModelPaths

case = qwen_case.case
PRUNED = VisualTokenConfig(0.5, prune_layers=(1, 3))


@pytest.mark.parametrize("what", ["picture", "8 resized frames", "picture and video"])
@pytest.mark.parametrize("tokens", [VisualTokenConfig.off(), PRUNED], ids=["off", "pruned"])
def test_a_plan_counts_what_is_used(case: Case, what: str, tokens: VisualTokenConfig) -> None:
    asked = ASKED[case.family][what]
    pair = case.llm.model.paths
    wanted = Request(asked.text, asked.items(case), tokens, asked.sampling, n_answer=1)
    with closing(open_model(pair.model, pair.mmproj, config=LoadConfig(**F32), weights=False)) as model:
        outcome = work_out(model, wanted, outline_all(model, wanted))
    done = case.llm.prefill(asked.text, asked.items(case), tokens, sampling=asked.sampling)
    for field in ("n_frames", "n_images", "n_text", "n_visual_full", "n_visual", "n_prompt"):
        assert getattr(outcome.sizes, field) == getattr(done.stats, field), field
    assert outcome.sizes.counts == [len(kept) for kept in done.trace.kept]
    assert (outcome.room.n_ctx, outcome.room.kv_bytes) == (done.stats.n_ctx, done.stats.kv_bytes)
    assert (outcome.sizes.flops["prefill"], outcome.sizes.flops["full"]) == (done.stats.flops, done.stats.flops_full)


def test_explain_shows_every_pair_of_frames(case: Case) -> None:
    asked = ASKED[case.family]["8 frames"]
    found = explain(case.llm, asked.text, asked.items(case), PRUNED, sampling=asked.sampling)
    pictures = report(found)["pictures"]
    assert [(p["rows"], p["cols"], p["timestamp"]) for p in pictures] == [(4, 3, 4.0 * i) for i in (0, 2, 4, 6)]


def test_bench_without_the_tower(case: Case) -> None:
    """Rows out of nothing, and a prefill that drops as many."""
    pair = case.llm.model.paths
    with Session(ModelPaths("qwen", pair.model, pair.mmproj), LoadConfig(**F32), skip_vision=True) as session:
        full, pruned = (session.run(2, tokens, n_decode=2) for tokens in (VisualTokenConfig.off(), PRUNED))
        assert full.n_visual == full.n_visual_full == pruned.n_visual_full > pruned.n_visual > 0
        assert replace(full, ms={}, peak_rss=0, kv_bytes=0) == replace(
            session.run_tokens(2, n_decode=2), ms={}, peak_rss=0, kv_bytes=0
        )


def test_rows_without_the_tower_are_as_many(case: Case) -> None:
    check_without_vision(case)
