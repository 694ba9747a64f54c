"""What is dropped without close() is freed, and Ctrl-C while a model or a context is made is not lost."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from aim_local import GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import ModelError
from aim_local.native.created import created, interrupted

CLIP = np.random.default_rng(5).integers(0, 256, (2, 112, 112, 3), np.uint8)
SHORT = GenerateConfig(max_tokens=2)


@pytest.fixture
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load() as loaded:
        yield loaded


@pytest.mark.parametrize("tokens", [None, VisualTokenConfig.paper()], ids=["plain", "pruned"])
def test_a_dropped_conversation_is_freed(llm: VisionLLM, tokens: VisualTokenConfig | None) -> None:
    """Guards a server that makes a conversation per visitor: no KV cache waits for the next one."""

    def visit() -> None:
        llm.chat(tokens, generate=SHORT).ask("What is it?", [CLIP])

    for _ in range(3):
        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
        gc.collect()
        assert not llm.model.contexts._all


def test_a_conversation_that_is_held_stays(llm: VisionLLM) -> None:
    """Guards against freeing a context in use when others are made and dropped."""
    chat = llm.chat(generate=SHORT)
    wanted = [chat.ask("What is it?", [CLIP]).tokens, chat.ask("And then?").tokens]
    with llm.chat(generate=SHORT) as other:
        found = [other.ask("What is it?", [CLIP]).tokens]
        for _ in range(3):
            llm.chat(generate=SHORT).ask("What is it?")
        gc.collect()
        assert [*found, other.ask("And then?").tokens] == wanted


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT to one process")
def test_what_ctrl_c_interrupts_is_freed() -> None:
    freed: list[str] = []

    def make() -> str:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()  # what is made step by step would stop here
        return "made"

    with pytest.raises(KeyboardInterrupt):
        created(make, freed.append)
    assert freed == ["made"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not interrupted()
    assert created(lambda: "made", freed.append) == "made"


def test_loading_is_given_up_where_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the minutes that loading takes, from a slow disk or to another machine."""
    asked: list[int] = []
    monkeypatch.setattr("aim_local.native.llama.interrupted", lambda: asked.append(1) or len(asked) > 3)
    with pytest.raises(ModelError, match="does not load"):
        VisionLLM.load()
    assert len(asked) == 4


@pytest.fixture
def no_collection() -> Iterator[None]:
    """hypothesis has a callback at each collection; Python drops a KeyboardInterrupt that arrives in one."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.skipif(os.name != "posix", reason="no SIGINT to one process")
def test_ctrl_c_while_loading_is_not_lost() -> None:
    """The libraries log into Python while they load, which is where it arrives."""

    def press(delay: float) -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)

    def load(thread: threading.Thread) -> None:
        with VisionLLM.load():
            thread.join()
            time.sleep(1)  # it may come late

    for i in range(20):
        thread = threading.Thread(target=press, args=(0.002 * i + 0.001,))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            thread.start()
            load(thread)
        thread.join()
