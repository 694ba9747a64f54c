"""Grammars with more ways to go on than can be counted: whoever asks is told, and the model goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import CancelledError, UsageError
from aim_local.native import aside
from aim_local.native.sampler import Sampler

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def demo() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(cache_media=False, n_threads=1)) as llm:
        yield llm


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Grammars take until the event is set, as some really take for ever."""
    go, real = threading.Event(), Sampler._draw
    monkeypatch.setattr(Sampler, "_draw", lambda self, logits: (go.wait(PATIENCE_S), real(self, logits))[1])
    yield go
    go.set()
    while aside.is_busy():
        pass


def ask(llm: VisionLLM, grammar: str = "", **options: object) -> str:
    with llm.chat() as chat:
        return chat.ask("Yes?", generate=GenerateConfig(grammar=grammar, max_tokens=4), **options).text


def test_a_grammar_that_takes_too_long_is_refused_and_the_model_goes_on(
    demo: VisionLLM, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ask(demo)
    monkeypatch.setattr(aside, "PATIENCE_S", 0.1)
    with pytest.raises(UsageError, match="more ways to go on than can be tried"):
        ask(demo, 'root ::= "yes"')
    assert ask(demo) == plain
    with pytest.raises(UsageError, match="an earlier grammar is still being worked out"):
        ask(demo, 'root ::= "no"')
    slow.set()
    while aside.is_busy():
        pass
    assert ask(demo, 'root ::= "no"') == "no"


def test_a_wish_to_stop_is_heard_meanwhile(demo: VisionLLM, slow: threading.Event) -> None:
    with pytest.raises(CancelledError):
        ask(demo, 'root ::= "yes"', should_stop=lambda: True)


def test_why_a_grammar_is_none_is_still_told(demo: VisionLLM) -> None:
    with pytest.raises(UsageError, match="left recursion"):
        ask(demo, 'root ::= root "a" | "a"')
