"""A turn that fails, wherever it does, leaves its conversation as it was: the next turns are those of a calm one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from aim_local import Chat, FrameSampling, GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import CancelledError, UsageError
from aim_local.native import llama, staged

RNG = np.random.default_rng(3)
CLIP, OTHER = (RNG.integers(0, 256, (n, 112, 112, 3), np.uint8) for n in (4, 12))
QUESTION = "What appears in the middle?"
SHORT = GenerateConfig(max_tokens=4)
SETTINGS = {
    "off": VisualTokenConfig.off(),
    "pruned": VisualTokenConfig(merge_retain=0.5, prune_layers=(2, 6)),
    "budget": VisualTokenConfig.budget(0.3),
}
Turn = Callable[[Chat], object]


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load() as loaded:
        yield loaded


class Broken(BaseException):
    """Not an Exception: whatever breaks a turn off."""


def cancelled(chat: Chat) -> None:
    with pytest.raises(CancelledError):
        chat.ask("Where?", [CLIP], should_stop=lambda: True)


def broken_in(stage: str) -> Turn:
    def progress(now: str, done: int, total: int) -> None:
        if (now, done) == (stage, total):
            raise Broken

    def turn(chat: Chat) -> None:
        with pytest.raises(Broken):
            chat.ask("Where?", [CLIP], progress=progress)

    return turn


def broken_while_answering(chat: Chat) -> None:
    def on_text(_: str) -> None:
        raise Broken

    with pytest.raises(Broken):
        chat.ask("Where?", [CLIP], on_text=on_text)


def cancelled_before_a_word(chat: Chat) -> None:
    """After the prefill, before the first token: an empty answer would stay in the conversation."""
    done = list[bool]()
    with pytest.raises(CancelledError):
        chat.ask(
            "Where?",
            [CLIP],
            progress=lambda stage, n, total: done.append(stage == "prefill" and n == total),
            should_stop=lambda: any(done),
        )


FAILED = {
    "cancelled": cancelled,
    "vision": broken_in("vision"),
    "prefill": broken_in("prefill"),
    "answer": broken_while_answering,
    "first token": cancelled_before_a_word,
}


@pytest.mark.parametrize("failed", FAILED.values(), ids=FAILED)
@pytest.mark.parametrize("tokens", SETTINGS.values(), ids=SETTINGS)
def test_a_failed_turn_leaves_nothing(llm: VisionLLM, tokens: VisualTokenConfig, failed: Turn) -> None:
    """Guards the cells, the plan of a budget and the messages, in a new conversation and in one under way."""

    def talk(before: Turn, between: Turn) -> list[object]:
        found: list[object] = []
        with llm.chat(tokens, generate=SHORT, sampling=FrameSampling(n_frames=4)) as chat:
            for disturb, media in ((before, [OTHER]), (between, [CLIP]), (between, [])):
                said = chat.messages
                disturb(chat)
                assert chat.messages == said
                answer = chat.ask(QUESTION, media)
                found += [answer.tokens, answer.stats.n_visual, chat.used, chat.messages]
        return found

    def calm(_: Chat) -> None:
        pass

    assert talk(failed, failed) == talk(calm, calm)


def on_return(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, at: int) -> None:
    """A Ctrl-C that comes after the last question of a native call: it is raised where the call returns."""
    real, calls = getattr(module, name), [0]

    def call(*args: object) -> object:
        status = real(*args)
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt
        return status

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("tokens", SETTINGS.values(), ids=SETTINGS)
def test_ctrl_c_where_a_prefill_returns(
    llm: VisionLLM, tokens: VisualTokenConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against rows that are in the native cache and not counted: the next prefill would be put behind them."""

    def talk(disturbed: bool) -> list[object]:
        with llm.chat(tokens, generate=SHORT) as chat:
            found: list[object] = [chat.ask(QUESTION, [CLIP]).tokens]
            if disturbed:
                with monkeypatch.context() as patch:
                    on_return(patch, staged, "_prefill", 1)
                    on_return(patch, llama.llama, "llama_decode", 1)
                    with pytest.raises(KeyboardInterrupt):
                        chat.ask("Where?", [OTHER])
            for media in ([OTHER], []):
                found += [chat.ask(QUESTION, media).tokens, chat.used]
        return found

    assert talk(True) == talk(False)


def test_ctrl_c_where_a_decode_returns(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the next turn after an answer that was cut: its token is not in the cache twice."""
    tokens = SETTINGS["pruned"]
    with llm.chat(tokens, generate=SHORT) as chat:
        chat.ask(QUESTION, [CLIP])
        with monkeypatch.context() as patch:
            on_return(patch, llama.llama, "llama_decode", 2)  # the first is the prefill
            assert chat.ask("And then?").stats.stop_reason == "interrupted"
        assert chat.ask("And then?").tokens


def test_a_conversation_is_read_while_it_is_asked(llm: VisionLLM) -> None:
    """Guards readers in callbacks and other threads against half a turn."""
    seen: list[int] = []
    with llm.chat(generate=SHORT) as chat:
        chat.ask(QUESTION, [CLIP])
        chat.ask(QUESTION, [CLIP], on_text=lambda _: seen.append(len(chat.messages)))
        assert set(seen) == {2}
        assert len(chat.messages) == 4
    assert (chat.used, chat.n_ctx) == (0, 0)


def test_a_conversation_is_not_changed_in_its_own_callback(llm: VisionLLM, tmp_path: Any) -> None:
    """Guards against freeing the context that the turn computes with: each of them is refused, at every stage."""
    changes: list[Turn] = [
        lambda chat: chat.reset(),
        lambda chat: chat.close(),
        lambda chat: chat.ask("And then?"),
        lambda chat: chat.save(tmp_path / "talk.aimchat"),
    ]
    for change in changes:

        def importance(_il: int, _scores: object, n_keep: int, change: Turn = change) -> range:
            change(chat)
            return range(n_keep)

        pruned = VisualTokenConfig(merge_retain=0.5, prune_layers=(2, 6), importance=importance)  # type: ignore[arg-type]
        with llm.chat(pruned, generate=SHORT) as chat, pytest.raises(UsageError, match="callback"):
            chat.ask(QUESTION, [CLIP])
        with llm.chat(generate=SHORT) as chat:
            with pytest.raises(UsageError, match="callback"):
                chat.ask(QUESTION, [CLIP], on_text=lambda _, change=change: change(chat))  # type: ignore[misc]
            with pytest.raises(UsageError, match="callback"):
                chat.ask(QUESTION, [CLIP], progress=lambda *_, change=change: change(chat))  # type: ignore[misc]
            assert (chat.messages, chat.used) == ([], 0)
