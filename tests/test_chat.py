"""Conversations on a tiny converted checkpoint: the cache, turns that fail, contexts that fill up."""

from __future__ import annotations

from pathlib import Path

import pytest
import runtime_case
from runtime_case import one_line, video

from aim_local import Chat, GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import ContextError, MediaError
from aim_local.models.prompt import MediaKind, Message, mark

checkpoint, model, llm = runtime_case.checkpoint, runtime_case.model, runtime_case.llm


def as_messages(chat: Chat) -> list[Message]:
    """The conversation as the template takes it; its media are clips."""
    found, n = list[Message](), 0
    for message in chat.messages:
        shown: list[tuple[int, MediaKind]] = [(n + i, "video") for i in range(len(message["media"]))]
        found.append(Message(message["role"], message["content"], shown))
        n += len(shown)
    return found


def test_chat_equals_one_prompt(llm: VisionLLM) -> None:
    """The second turn's logits, from the cache, equal those of the whole conversation prefilled at once."""
    short = GenerateConfig(max_tokens=6)
    with llm.chat(generate=short) as chat:
        first = chat.ask("what is it?", [video()])
        second = chat.ask("and then?")
        rendered = llm.render(as_messages(chat)[:3])
        used = chat.used
    assert second.stats.n_prompt < first.stats.n_prompt
    raw = rendered.replace(mark(0), "<__media__>")
    again = llm.generate(raw, [video()], raw=True, generate=short)
    assert again.text == second.text
    assert used >= again.stats.n_prompt


def test_chat_takes_back_a_failed_turn(llm: VisionLLM, tmp_path: Path) -> None:
    short = GenerateConfig(max_tokens=4)
    with llm.chat(generate=short) as chat, llm.chat(generate=short) as calm:
        for c in (chat, calm):
            c.ask("what is it?", [video()])
        with pytest.raises(MediaError):
            chat.ask("and this?", [tmp_path / "none.mp4"])
        assert len(chat.messages) == 2
        assert chat.ask("go on").text == calm.ask("go on").text


def test_chat_interrupted_keeps_what_was_said(llm: VisionLLM) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with llm.chat(generate=GenerateConfig(max_tokens=30)) as chat:
        answer = chat.ask("what is it?", [video()], on_text=stop)
        assert answer.stats.stop_reason == "interrupted"
        assert chat.ask("go on").stats.n_generated > 0
        assert len(chat.messages) == 4


def test_ctrl_c_while_native_code_computes_takes_the_turn_back(llm: VisionLLM) -> None:
    """As the command line does it: Ctrl-C is noted, and raised where the library asks whether to stop."""

    def pressed() -> bool:
        raise KeyboardInterrupt

    with llm.chat(generate=GenerateConfig(max_tokens=4)) as chat:
        with pytest.raises(KeyboardInterrupt):
            chat.ask("what is it?", [video()], should_stop=pressed)
        assert (chat.messages, chat.used) == ([], 0)
        assert chat.ask("what is it?", [video()]).stats.n_visual > 0


def test_chat_grows_its_context(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import aim_local.chat

    monkeypatch.setattr(aim_local.chat, "_FIRST_CELLS", 64)
    short = GenerateConfig(max_tokens=4)
    with llm.chat(generate=short) as chat:
        chat.ask("what is it?", [video(2)])
        before = chat.n_ctx
        for i in range(12):
            chat.ask("and then? " * 10, [video(2, i)])
        assert chat.n_ctx > before


def test_chat_full_context_is_a_choice(model: Path) -> None:
    def talk(chat: Chat) -> None:
        for _ in range(50):
            chat.ask("and then? " * 5)

    config = LoadConfig(n_ctx=256, n_threads=1)
    with VisionLLM.load(model, config=config) as llm, llm.chat(generate=GenerateConfig(max_tokens=4)) as chat:
        with pytest.raises(ContextError) as e:
            talk(chat)
        assert "start a new conversation" in one_line(e)
        chat.reset()
        assert chat.ask("hello").stats.n_generated > 0
