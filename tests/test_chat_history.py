"""Conversations that begin with what was said elsewhere, and conversations that go back: equal to one said in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from aim_local import (
    Chat,
    FrameSampling,
    GenerateConfig,
    LoadConfig,
    Sampled,
    Turn,
    VisionLLM,
    VisualTokenConfig,
)  # fmt: skip
from aim_local.demo import held_out, write_clip
from aim_local.errors import MediaError, UsageError

SHORT = GenerateConfig(max_tokens=6)
FIRST, SECOND, THIRD = "What moves?", "And then?", "Which colour is it?"
KINDS = {
    "plain": VisualTokenConfig.off(),
    "merged": VisualTokenConfig(prune_layers=None),
    "pruned": VisualTokenConfig(merge_retain=0.5),
    "question": VisualTokenConfig(merge_retain=0.5, importance="question"),
    "budget": VisualTokenConfig.budget(0.4),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(clip, folder / f"{i}.mp4") for i, clip in enumerate(held_out(3))]


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    exact = LoadConfig(
        n_threads=1, type_k="f32", type_v="f32", vision_precision="exact", prefill_precision="exact", flash_attn=False
    )
    with VisionLLM.load(config=exact) as loaded:
        yield loaded


def logits_after(chat: Chat) -> np.ndarray:
    assert chat._cache
    return chat._cache.context.logits()


def same(a: Chat, b: Chat) -> float:
    """The largest difference of their last logits. Both were asked the same last."""
    return float(np.abs(logits_after(a) - logits_after(b)).max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_is_as_if_it_had_been_said(llm: VisionLLM, clips: list[Path], kind: str) -> None:
    with llm.chat(KINDS[kind], "Be brief.", SHORT) as said:
        one = said.ask(FIRST, [clips[0]])
        two = said.ask(SECOND, [clips[1]])
        third = said.ask(THIRD)
        history = [
            Turn("user", FIRST, [clips[0]]),
            Turn("assistant", one.text),
            Turn("user", SECOND, [clips[1]]),
            Turn("assistant", two.text),
        ]
        with llm.chat(KINDS[kind], "Be brief.", SHORT, history=history) as given:
            answer = given.ask(THIRD)
            worst = same(said, given)
            assert given.messages == said.messages
    print(f"largest difference {worst:.1e}")
    assert answer.text == third.text
    assert worst < 1e-4
    assert answer.stats.n_reused == 0
    assert third.stats.n_reused > 0
    assert third.stats.n_reused_visual == answer.stats.n_visual
    assert third.stats.n_reused_visual_full == answer.stats.n_visual_full


@pytest.mark.parametrize("kind", KINDS)
def test_going_back(llm: VisionLLM, clips: list[Path], kind: str) -> None:
    """To the first answer, and from there another way: as if the second question had never been."""
    with llm.chat(KINDS[kind], generate=SHORT) as chat, llm.chat(KINDS[kind], generate=SHORT) as straight:
        for one in (chat, straight):
            one.ask(FIRST, [clips[0]])
        chat.ask(SECOND, [clips[1]])
        chat.rewind(2)
        assert chat.messages == straight.messages
        again, expected = chat.ask(THIRD), straight.ask(THIRD)
        assert again.text == expected.text
        assert again.stats.n_reused > 0
        assert same(chat, straight) < 1e-4
        assert [group.media for group in again.trace.groups] == [group.media for group in expected.trace.groups]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("back", [0, 2])
def test_another_clip_in_the_place_of_one_that_was_taken_back(
    llm: VisionLLM, clips: list[Path], kind: str, back: int
) -> None:
    """Clips of equal size have equal counts: the context must not take the second for the first."""
    options = GenerateConfig(max_tokens=1)
    with llm.chat(KINDS[kind], generate=options) as chat, llm.chat(KINDS[kind], generate=options) as straight:
        if back:
            for one in (chat, straight):
                one.ask(FIRST, [clips[2]])
        chat.ask(SECOND, [clips[0]])
        chat.rewind(back)
        for one in (chat, straight):
            one.ask(SECOND, [clips[1]])
        worst = same(chat, straight)
    print(f"largest difference {worst:.1e}")
    assert worst < 1e-4


def test_how_far_one_can_go_back(llm: VisionLLM) -> None:
    with llm.chat(system="Be brief.", generate=SHORT) as chat:
        chat.ask(FIRST)
        for wrong in (0, -1, 4):
            with pytest.raises(UsageError, match="from 1 to 3"):
                chat.rewind(wrong)
        chat.rewind(1)
        assert [message["role"] for message in chat.messages] == ["system"]
        assert chat.used == 0


def test_a_question_that_fails_keeps_the_history(llm: VisionLLM, clips: list[Path], tmp_path: Path) -> None:
    history = [Turn("user", FIRST, [clips[0]]), Turn("assistant", "A ball.")]
    with llm.chat(generate=SHORT, history=history) as chat, llm.chat(generate=SHORT, history=history) as calm:
        with pytest.raises(MediaError):
            chat.ask(SECOND, [tmp_path / "none.mp4"])
        assert chat.messages == []
        assert chat.ask(SECOND).text == calm.ask(SECOND).text
        assert len(chat.messages) == 4
        chat.reset()
        assert (chat.messages, len(chat.ask(FIRST).warnings)) == ([], 0)


def test_turns_that_are_none() -> None:
    """Told where the turn is made, before anybody takes it."""
    bad: list[tuple[tuple[Any, ...], str]] = [
        (("user", None), "the text of a turn is None"),
        (("user", "\ud800"), "not UTF-8"),
        (("user", FIRST, None), "media of a turn is NoneType"),
        (("tool", FIRST), "the role of a turn is 'tool'; allowed are user, assistant"),
        (("assistant", "red", ["a.png"]), "a turn of the assistant has media"),
    ]
    for fields, told in bad:
        with pytest.raises(UsageError, match=told):
            Turn(*fields)


def test_an_item_with_a_sampling_of_its_own(llm: VisionLLM, clips: list[Path]) -> None:
    few, many = FrameSampling(n_frames=2), FrameSampling(n_frames=5)
    whole = llm.prefill(FIRST, [clips[0]], sampling=few)
    own = llm.prefill(FIRST, [Sampled(clips[0], few)], sampling=many)
    assert own.stats.n_frames == 2
    assert np.array_equal(own.logits, whole.logits)
    mixed = llm.prefill(FIRST, [Sampled(clips[0], few), clips[1]], sampling=many)
    assert mixed.stats.n_frames == 7
    with llm.encode_ahead(Sampled(clips[0], few), many) as ahead:
        assert np.array_equal(llm.prefill(FIRST, [ahead]).logits, whole.logits)


def test_histories_that_are_none(llm: VisionLLM) -> None:
    """A generator was read to its end before it was taken: its turns were lost without a word."""
    said = (Turn("user", FIRST), Turn("assistant", "red"))
    bad: list[tuple[Any, str]] = [
        ((turn for turn in said), "the history is generator; give a list of turns"),
        (None, "the history is NoneType"),
        ("red", "the history is 'red'"),
        ([{"role": "user", "content": FIRST}], "give aim_local.Turn"),
    ]
    for history, told in bad:
        with pytest.raises(UsageError, match=told):
            llm.chat(history=history)
    with pytest.raises(UsageError, match="system holds bytes"):
        llm.chat(system="\ud800")


def test_numbers_of_messages_that_are_none(llm: VisionLLM) -> None:
    with llm.chat() as chat:
        for odd in (None, "1", 1.0):
            with pytest.raises(UsageError, match="n_messages is"):
                chat.rewind(cast(int, odd))
