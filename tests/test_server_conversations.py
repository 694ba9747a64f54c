"""Requests that go on with a conversation: what is computed is used, and the answer is that of a fresh one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from server_case import CLIPS, PATIENCE_S, HeldLLM, Running, data_url, question, running, video_part

from aim_local.config import GenerateConfig
from aim_local.native import sampler
from aim_local.server.conversations import Conversations, Listeners
from aim_local.server.jobs import Client, Job
from aim_local.server.requests.asked import Asked, AskedTurn
from aim_local.server.service import Keeping

PLACES = sorted(CLIPS.glob("*.mp4"))
FIRST = "Which way does the shape move?"
THEN = ("What color is it?", "What shape is it?", "Which way does the shape move?")


@pytest.fixture(scope="module")
def found() -> Iterator[Running]:
    with running(keeping=Keeping(3)) as service:
        yield service


def ask(found: Running, messages: list[dict[str, Any]], **more: Any) -> tuple[str, int]:
    """(answer, cached tokens)"""
    answer = found.post({"messages": messages, **more})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["choices"][0]["message"]["content"], body["usage"]["prompt_tokens_details"]["cached_tokens"]


def talk(*turns: str, system: str | None = None, clip: Any = None) -> list[dict[str, Any]]:
    """user, assistant, user, ..."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for i, text in enumerate(turns):
        parts = [video_part(data_url(clip or PLACES[0]))] if i == 0 else []
        messages += [{"role": "assistant", "content": text}] if i % 2 else question(text, *parts)
    return messages


@pytest.mark.parametrize(
    ("setting", "system"),
    [
        (None, "Be brief."),
        ("paper", None),
        ("budget=0.3", None),
        pytest.param(None, None, marks=pytest.mark.thorough),
        pytest.param("paper:importance=question", "Be brief.", marks=pytest.mark.thorough),
        pytest.param("ward", None, marks=pytest.mark.thorough),
        pytest.param("budget=0.3", "Be brief.", marks=pytest.mark.thorough),
    ],
)
def test_the_answer_is_that_of_a_fresh_conversation(found: Running, setting: str | None, system: str | None) -> None:
    """Also under a budget, which is planned once however the text grows."""
    more = {} if setting is None else {"visual_tokens": setting}
    turns, n_cached = [FIRST, ask(found, talk(FIRST, system=system), **more)[0]], []
    for text in THEN:
        messages = talk(*turns, text, system=system)
        answer, n = ask(found, messages, **more)
        assert answer == ask(found, messages, cache_prompt=False, **more)[0]
        turns += [text, answer]
        n_cached.append(n)
    assert n_cached == sorted(n_cached)
    assert n_cached[0] > 20


def test_prompt_tokens_and_visual_tokens_count_the_whole_conversation(found: Running) -> None:
    _, messages = ask(found, talk(FIRST)), talk(FIRST, ask(found, talk(FIRST))[0], THEN[0])
    usages = [found.post({"messages": messages, "cache_prompt": cached}).json()["usage"] for cached in (True, False)]
    for usage in usages:
        usage["prompt_tokens_details"].pop("cached_tokens")
    assert usages[0] == usages[1]
    assert usages[0]["prompt_tokens_details"]["visual_tokens_full"] == 129


def test_another_clip_is_not_taken_for_the_first(found: Running) -> None:
    """The same words about another clip of the same size: nothing of the first may be used."""
    answers = {}
    for clip in PLACES[:3]:
        first, _ = ask(found, talk(FIRST, clip=clip))
        messages = talk(FIRST, first, THEN[0], clip=clip)
        answers[clip] = ask(found, messages)[0]
        assert answers[clip] == ask(found, messages, cache_prompt=False)[0]
    clip, other = PLACES[0], PLACES[1]
    messages = talk(FIRST, ask(found, talk(FIRST, clip=clip))[0], THEN[0], clip=other)
    answer, n_cached = ask(found, messages)
    assert n_cached == 0
    assert answer == ask(found, messages, cache_prompt=False)[0]


@pytest.mark.parametrize("change", ["answer", "frames", "system", "setting"])
def test_what_differs_is_computed_anew(found: Running, change: str) -> None:
    first, _ = ask(found, talk(FIRST, system="Be brief."))
    more: dict[str, Any] = {"frames": {"frames": 4}, "setting": {"visual_tokens": "paper"}}.get(change, {})
    said = "something else" if change == "answer" else first
    messages = talk(FIRST, said, THEN[0], system="Be long." if change == "system" else "Be brief.")
    answer, n_cached = ask(found, messages, **more)
    assert n_cached == 0
    assert answer == ask(found, messages, cache_prompt=False, **more)[0]


def test_a_question_asked_again_goes_back(found: Running) -> None:
    """An edited last question continues what was before it."""
    first, _ = ask(found, talk(FIRST))
    for text in (THEN[0], THEN[1], THEN[0]):
        messages = talk(FIRST, first, text)
        answer, n_cached = ask(found, messages)
        assert n_cached > 100
        assert answer == ask(found, messages, cache_prompt=False)[0]


def test_a_refused_turn_leaves_the_conversation(found: Running) -> None:
    first, _ = ask(found, talk(FIRST))
    assert found.post({"messages": talk(FIRST, first, "word " * 9000)}).status_code == 400
    messages = talk(FIRST, first, THEN[0])
    answer, n_cached = ask(found, messages)
    assert n_cached > 100
    assert answer == ask(found, messages, cache_prompt=False)[0]


def test_a_cancelled_answer_leaves_the_conversation(found: Running) -> None:
    first, _ = ask(found, talk(FIRST))
    messages = talk(FIRST, first, THEN[0])
    endless = {"messages": messages, "stream": True, "grammar": "root ::= [a-z ] root", "max_tokens": 3000}
    with httpx.stream("POST", f"{found.base}/chat/completions", json=endless, timeout=PATIENCE_S) as stream:
        assert next(line for line in stream.iter_lines() if '"delta":{"content"' in line)
    found.wait(lambda: found.service.is_idle)
    answer, n_cached = ask(found, messages)
    assert n_cached > 100
    assert answer == ask(found, messages, cache_prompt=False)[0]


# --- how many are kept ------------------------------------------------------------------------------------------------


def kept_of(n: int, n_bytes: int, *texts: str, account: str = "me") -> tuple[list[str], Conversations]:
    """First questions of the conversations that are kept after these were asked; a HeldChat has 1,000 bytes."""
    llm = HeldLLM(free=True)
    kept = Conversations(llm, n, n_bytes)
    for text in texts:
        answer(kept, account, text)
    return [chat.questions[0] for chat in llm.chats if not chat.closed], kept


def answer(kept: Conversations, account: str, *turns: str) -> None:
    asked = [AskedTurn("assistant" if i % 2 else "user", text) for i, text in enumerate(turns)]
    job = Job(Asked(tuple(asked), None, GenerateConfig(), None, None), Client(account), lambda _: None)
    job.found = tuple(() for _ in asked)
    kept.answer(job, Listeners(lambda _: None, None, lambda *_: None, lambda: False))


def test_the_least_recently_used_goes_first() -> None:
    assert kept_of(2, 10_000, "1", "2", "3")[0] == ["2", "3"]
    assert kept_of(9, 2500, "1", "2", "3")[0] == ["2", "3"]
    assert kept_of(9, 500, "1")[0] == []
    assert kept_of(0, 10_000, "1")[0] == []


def test_a_conversation_that_goes_on_is_the_most_recently_used() -> None:
    _, kept = kept_of(2, 10_000, "1", "2")
    answer(kept, "me", "1", "word end", "more")
    answer(kept, "me", "3")
    assert kept.n_bytes == 2000
    assert [line.text for line in kept.known()[0]] == ["1", "word end", "more", "word end"]


def test_another_account_does_not_go_on_with_it() -> None:
    _, kept = kept_of(9, 10_000, "1")
    answer(kept, "other", "1", "word end", "more")
    assert len(kept) == 2


def test_all_are_freed_at_the_end() -> None:
    _, kept = kept_of(9, 10_000, "1", "2")
    kept.close()
    assert (len(kept), kept.n_bytes) == (0, 0)


@pytest.mark.parametrize("then", [{"grammar": 'root ::= "no"'}, {"json_schema": {"const": 1}}, {"json_schema": {}}])
def test_a_grammar_without_an_end_holds_up_nobody(
    found: Running, then: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it has grammars and schemas at once: nothing of it goes on."""
    ways = "\n".join(f'r{i} ::= r{i + 1} | r{i + 1} "x"' for i in range(16))
    monkeypatch.setattr(sampler, "GRAMMAR_MS", 300)
    refused = found.post({"messages": question(FIRST), "grammar": f'root ::= r0\n{ways}\nr16 ::= "y"'})
    assert refused.status_code == 400
    assert "more ways to go on than can be tried" in refused.json()["error"]["message"]
    assert found.post({"messages": question(FIRST), "max_tokens": 4, **then}).status_code == 200
