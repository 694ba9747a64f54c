"""Rankings by the question through the whole runtime: which rows ask, in the first turn and in later ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plan_case
import pytest
import runtime_case
from limits import LIMITS
from prompt_steps import read_and_plan
from runtime_case import video
from test_chat import as_messages
from test_chat_rerank import distance, logits_of

from aim_local import Chat, GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local.config import IMPORTANCE
from aim_local.engine.contexts import open_context
from aim_local.engine.model import Model
from aim_local.engine.plan import context_size
from aim_local.engine.prefill import prefill
from aim_local.engine.watch import Watch
from aim_local.lab.plan.features import features
from aim_local.lab.plan.request import Request, outline_all, plan_request, work_out
from aim_local.models.prompt import mark
from aim_local.native import staged
from aim_local.results import Trace
from aim_local.settings import PRESETS, parse_setting

checkpoint, model, llm = runtime_case.checkpoint, runtime_case.model, runtime_case.llm
planned_model, clips = plan_case.model, plan_case.clips

SHORT, ONE = GenerateConfig(max_tokens=5), GenerateConfig(max_tokens=1)
BY_QUESTION = ("question", "question_value")


def tokens_of(how: str, **options: Any) -> VisualTokenConfig:
    return VisualTokenConfig(merge_retain=0.5, prune_layers=(0, 2), importance=how, **options)


def rendered(llm: VisionLLM, chat: Chat, n: int, *, answer_next: bool) -> str:
    """The first n messages as a raw prompt."""
    text = llm.render(as_messages(chat)[:n], answer_next=answer_next)
    return text.replace(mark(0), "<__media__>").replace(mark(1), "<__media__>")


def last_turn(llm: VisionLLM, chat: Chat) -> int:
    """Tokens of the last question and what the template writes around it, counted from the rendered text itself."""
    whole = rendered(llm, chat, -1, answer_next=True)
    before = rendered(llm, chat, -2, answer_next=False)
    assert whole.startswith(before)
    return len(llm.text.tokenize(whole[len(before) :], start=False))


def afresh(
    llm: VisionLLM, chat: Chat, media: list[Any], tokens: VisualTokenConfig, n_query: int
) -> tuple[np.ndarray, Trace]:
    """Logits and trace of the conversation up to its last question, whose rows are the last n_query."""
    reading, plan = read_and_plan(llm, rendered(llm, chat, -1, answer_next=True), media, tokens, raw=True)
    plan = replace(plan, n_query=n_query)
    context = open_context(llm.model, plan, context_size(llm.model, plan, 8) - plan.n_visual)
    try:
        filled = prefill(llm.model, plan, dict(enumerate(reading.items)), context, Watch(), reading)
        return context.logits(), filled.trace
    finally:
        context.close()


@pytest.mark.parametrize("how", BY_QUESTION)
@pytest.mark.parametrize("weigh", ["equal", "size"])
@pytest.mark.parametrize("saved", [False, True])
def test_a_later_question_ranks_by_itself(
    llm: VisionLLM, how: str, weigh: str, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the conversation prefilled anew with the later turn's rows as the question, and not with more of them."""
    monkeypatch.setattr("aim_local.chat._SPARE_TEXT", 8)
    tokens = tokens_of(how, weigh=weigh)
    chat = llm.chat(tokens)
    chat.ask("what is it?", [video()], SHORT)
    if saved:
        path = chat.save(tmp_path / "talk.aimchat")
        chat.close()
        chat = llm.load_chat(path)
    with chat:
        answer = chat.ask("and then, what comes?", (), ONE)
        n = last_turn(llm, chat)
        logits, trace = afresh(llm, chat, [video()], tokens, n)
        assert distance(logits_of(chat), logits) < LIMITS.whole
        assert [k.tolist() for k in answer.trace.kept] == [k.tolist() for k in trace.kept]
        for il, scores in trace.importance.items():
            assert distance(answer.trace.importance[il], scores) < 1e-3
        more = afresh(llm, chat, [video()], tokens, 0)[1]
        assert distance(more.importance[0], trace.importance[0]) > 0.01


def test_a_later_clip_is_ranked_by_what_follows_it(llm: VisionLLM) -> None:
    tokens = tokens_of("question")
    with llm.chat(tokens) as chat:
        chat.ask("what is it?", [video()], SHORT)
        answer = chat.ask("once more", [video(2, 5)], ONE)
        logits, trace = afresh(llm, chat, [video(), video(2, 5)], tokens, 0)
        assert distance(logits_of(chat), logits) < LIMITS.whole
        assert [k.tolist() for k in answer.trace.kept] == [k.tolist() for k in trace.kept]


def test_the_rows_that_ask_are_counted(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """What native code is told: nothing in the first turn, the later turn's own rows after it."""
    told: list[int] = []
    native = staged.StagedContext.prefill

    def prefill_of(self: Any, *args: Any, **options: Any) -> Any:
        told.append(options["n_query"])
        return native(self, *args, **options)

    monkeypatch.setattr(staged.StagedContext, "prefill", prefill_of)
    with llm.chat(tokens_of("question")) as chat:
        chat.ask("what is it?", [video()], SHORT)
        chat.ask("and then?", (), SHORT)
        want = last_turn(llm, chat)
        assert told == [0, want]


@pytest.mark.parametrize("how", IMPORTANCE)
def test_presets(how: str) -> None:
    assert parse_setting(f"paper:importance={how}").importance == how
    assert how == "pagerank" or PRESETS[how] == VisualTokenConfig(importance=how)
    assert how in staged.IMPORTANCES


@pytest.mark.parametrize("how", IMPORTANCE)
def test_plans(planned_model: Model, clips: list[Path], how: str) -> None:
    """What a ranking costs: nothing, a few rows' attention, or a walk over all rows."""
    request = Request("What moves?", (clips[0],), VisualTokenConfig(importance=how))
    outlines = outline_all(planned_model, request)
    found = work_out(planned_model, request, outlines)
    work = features(planned_model, found.sizes, 0, outlines)["importance"]
    scores = found.memory.parts["importance scores"]
    plan = plan_request(planned_model, request, [outline.shape for outline in outlines])
    n_query = {"last_query": 1, **dict.fromkeys(BY_QUESTION, plan.n_asking)}.get(how)
    assert found.sizes.n_query == n_query
    shape, rows = planned_model.text.shape, [plan.n_text + plan.counts[il] for il in found.sizes.scored]
    d = shape.n_embd // shape.n_head
    if how in ("random", "grid"):
        assert (rows, scores, work["flops"]) == ([], 0, 0.0)
    elif n_query:
        assert work["flops"] == sum(shape.n_head * n * n_query * (2.0 * d + 7) for n in rows)
        n, q = max(rows), n_query
        keys, queries, head = 2 * n * shape.n_embd_kv, 2 * q * shape.n_head * d, 2 * n * q
        assert scores == 4 * (keys + queries + head + n * shape.n_head) + 2 * n * q
    else:
        assert work["flops"] == sum(shape.n_head * n * n * (2.0 * d + 15) for n in rows)
        assert scores > 4 * max(rows) * shape.n_head * d
