"""What is used after its end says so: models, conversations, contexts; in any order of closing and dropping."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from thorough import few

from aim_local import Chat, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import ClosedError, UsageError
from aim_local.native.owned import Owned

SHORT = GenerateConfig(max_tokens=3)
ONE = LoadConfig(n_threads=1)


def opened() -> tuple[VisionLLM, Chat]:
    llm = VisionLLM.load(config=ONE)
    chat = llm.chat(generate=SHORT)
    chat.ask("Hello")
    return llm, chat


def context_of(chat: Chat) -> Any:
    assert chat._cache
    return chat._cache.context


def tower_of(llm: VisionLLM) -> Any:
    return llm.model.tower


USES: dict[str, Callable[[VisionLLM, Chat, Any, Path], object]] = {
    "generate": lambda llm, chat, context, path: llm.generate("x", generate=SHORT),
    "prefill": lambda llm, chat, context, path: llm.prefill("x"),
    "score": lambda llm, chat, context, path: llm.score("x", generate=SHORT),
    "load_chat": lambda llm, chat, context, path: llm.load_chat(path),
    "ask": lambda llm, chat, context, path: chat.ask("x"),
    "save": lambda llm, chat, context, path: chat.save(path),
    "reset": lambda llm, chat, context, path: chat.reset(),
    "rewind": lambda llm, chat, context, path: chat.rewind(0),
    "use_tokens": lambda llm, chat, context, path: chat.use_tokens(VisualTokenConfig.off()),
    "tokenize": lambda llm, chat, context, path: llm.text.tokenize("x", start=True),
    "refusal": lambda llm, chat, context, path: llm.text.prune_refusal(),
    "state": lambda llm, chat, context, path: context.state(),
    "logits": lambda llm, chat, context, path: context.logits(),
    "decode": lambda llm, chat, context, path: context.decode_tokens([1], logits=True),
    "go back": lambda llm, chat, context, path: context.rewind(context.mark()),
    "tower": lambda llm, chat, context, path: tower_of(llm).encoder.newline(),
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionLLM, Chat, Any, Path]:
    llm, chat = opened()
    path = chat.save(tmp_path_factory.mktemp("closed") / "talk.aimchat")
    context = context_of(chat)
    llm.close()
    return llm, chat, context, path


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_after_the_model_was_closed(closed: tuple[VisionLLM, Chat, Any, Path], use: Any) -> None:
    with pytest.raises(ClosedError) as e:
        use(*closed)
    assert "\n" not in str(e.value)


OF_A_CHAT = ("ask", "save", "reset", "rewind", "use_tokens")


@pytest.mark.parametrize("name", OF_A_CHAT)
def test_after_the_conversation_was_closed(name: str, tmp_path: Path) -> None:
    """Only that conversation: its model goes on, and what was said can still be read."""
    llm, chat = opened()
    said, context = chat.messages, context_of(chat)
    chat.close()
    chat.close()
    with pytest.raises(ClosedError, match="the conversation is closed; start another one") as e:
        USES[name](llm, chat, context, tmp_path / "talk.aimchat")
    assert "\n" not in str(e.value)
    assert (chat.messages, chat.used) == (said, 0)
    assert llm.generate("x", generate=SHORT).stats.n_generated
    llm.close()


def test_closing_twice_and_facts_are_no_errors(closed: tuple[VisionLLM, Chat, Any, Path]) -> None:
    llm, chat, context, _ = closed
    for _ in range(2):
        chat.close()
        llm.close()
        context.close()
    assert llm.description()["name"] == "demo"
    assert chat.messages
    assert repr(chat)
    assert repr(llm)


def test_what_is_dropped_is_freed() -> None:
    """Conversations at once, also in another thread; a model with the last that uses it."""
    llm, chat = opened()
    model, first = llm.model.text.llama.owned, context_of(chat)._native.owned
    tower = tower_of(llm).encoder._given
    del chat
    with pytest.raises(ClosedError, match="context is closed"):
        _ = first.pointer
    held = [llm.chat(generate=SHORT)]
    held[0].ask("Hello")
    second = context_of(held[0])._native.owned
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    with pytest.raises(ClosedError):
        _ = second.pointer
    last = llm.chat(generate=SHORT)
    last.ask("Hello")
    del llm
    gc.collect()
    assert model.pointer  # the conversation has it
    assert last.ask("And?").tokens
    del last
    gc.collect()
    for owned in (model, tower):
        with pytest.raises(ClosedError):
            _ = owned.pointer


def test_one_dropped_in_a_turn_is_freed_at_its_end() -> None:
    llm, chat = opened()
    other = [llm.chat(generate=SHORT)]
    other[0].ask("Hello")
    owned = context_of(other[0])._native.owned
    lived: list[bool] = []

    def drop(_: str) -> None:
        other.clear()
        lived.append(bool(owned.pointer))

    chat.ask("What?", on_text=drop)
    assert lived[0]
    with pytest.raises(ClosedError):
        _ = owned.pointer
    llm.close()


def test_what_is_in_use_is_freed_afterwards() -> None:
    freed: list[int] = []
    parent = Owned("the model", 1, freed.append)
    child = Owned("the context", 2, freed.append, owner=parent)
    with parent.using() as pointer:
        thread = threading.Thread(target=parent.close)
        thread.start()
        thread.join()
        assert (pointer, freed) == (1, [])
        with pytest.raises(ClosedError, match="the model is closed"):
            _ = parent.pointer
    assert freed == [2, 1]  # what was made from it first
    child.close()
    parent.close()
    assert freed == [2, 1]


ORDERS = """
import gc, random, sys, threading
from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import AimError
SHORT, folder, rng = GenerateConfig(max_tokens=3), sys.argv[1], random.Random(int(sys.argv[2]))

def close_meanwhile(s):
    thread = threading.Thread(target=s["llm"].close)
    try:
        s["chat"].ask("x", generate=GenerateConfig(max_tokens=20), on_text=lambda _: thread.ident or thread.start())
    finally:
        if thread.ident: thread.join()

STEPS = {
    "ask": lambda s: s["chat"].ask("x"), "generate": lambda s: s["llm"].generate("x", generate=SHORT),
    "save": lambda s: s["chat"].save(folder + "/t.aimchat"), "reset": lambda s: s["chat"].reset(),
    "load": lambda s: s.update(chat=s["llm"].load_chat(folder + "/t.aimchat")),
    "chat": lambda s: s.update(chat=s["llm"].chat(generate=SHORT)),
    "close chat": lambda s: s["chat"].close(), "close": lambda s: s["llm"].close(),
    "close model": lambda s: s["llm"].model.close(), "close text": lambda s: s["text"].close(),
    "close tower": lambda s: s["tower"].close(), "close context": lambda s: s["context"].close(),
    "close meanwhile": close_meanwhile, "drop chat": lambda s: s.pop("chat"), "drop": lambda s: s.pop("llm"),
    "collect": lambda s: gc.collect(), "state": lambda s: s["context"].state(),
    "logits": lambda s: s["context"].logits(),
    "decode": lambda s: s["context"].decode_tokens([1], logits=True), "bytes": lambda s: s["context"].kv_bytes(),
    "tokenize": lambda s: s["text"].tokenize("x", start=True), "tower": lambda s: s["tower"].encoder.newline(),
    "facts": lambda s: (s["chat"].used, s["chat"].n_bytes, s["chat"].messages, repr(s["llm"]), s["llm"].notes),
}
for _ in range(int(sys.argv[3])):
    llm = VisionLLM.load(config=LoadConfig(n_threads=1)); chat = llm.chat(generate=SHORT); chat.ask("x")
    chat.save(folder + "/t.aimchat")
    s = {"llm": llm, "chat": chat, "context": chat._cache.context, "text": llm.text, "tower": llm.model.tower}
    del llm, chat
    for name in (order := rng.choices(list(STEPS), k=8)):
        try:
            STEPS[name](s)
        except KeyError as e:
            assert e.args[0] in ("llm", "chat"), order
        except AimError as e:
            assert chr(10) not in str(e), order
        except BaseException:
            print(order, flush=True)
            raise
"""


@pytest.mark.parametrize("n_models", few([2, 6], 1))
def test_orders(tmp_path: Path, n_models: int) -> None:
    """Eight steps of a kind each, drawn at random, in a process of their own: an error of ours or none, no signal."""
    ran = subprocess.run(
        [sys.executable, "-c", ORDERS, str(tmp_path), "1", str(n_models)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_is_refused(copied: Callable[[Any], Any]) -> None:
    """It would share the context, and its close() would free it."""
    llm, chat = opened()
    for what in (llm, chat):
        with pytest.raises(UsageError, match=rf"^a {type(what).__name__} cannot be copied or pickled"):
            copied(what)
    assert chat.ask("And?").stats.stop_reason
    llm.close()
