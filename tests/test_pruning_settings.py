"""What a setting of token merging and pruning does, and which settings cannot be; pruned conversations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pruning_case
import pytest
from pruning_case import Loaded

from aim_local import GenerateConfig, VisualTokenConfig
from aim_local.errors import AimError, ContextError, ModelError, UsageError
from aim_local.models.text import TextModel

loaded = pruning_case.loaded


def test_kv_memory_shrinks(loaded: Loaded) -> None:
    full = loaded.llm.prefill(loaded.prompt, loaded.case.media, VisualTokenConfig.off(), raw=True)
    pruned = loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True)
    assert pruned.stats.kv_bytes < full.stats.kv_bytes / 2
    assert pruned.stats.flops_share < 0.6


def test_callback_sees_the_scores_and_chooses(loaded: Loaded) -> None:
    seen: dict[int, int] = {}

    def first(il: int, importance: np.ndarray, n_keep: int) -> np.ndarray:
        seen[il] = len(importance)
        return np.arange(n_keep)

    tokens = dataclasses.replace(loaded.case.tokens, importance=first)
    trace = loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True).trace
    assert seen == {il: len(score) for il, score in trace.importance.items()}
    assert all(kept.tolist() == list(range(len(kept))) for kept in trace.kept)


@pytest.mark.parametrize("answer", [lambda n: [0] * n, lambda n: [0], lambda n: [-1, *range(n - 1)], lambda n: "ab"])
def test_callback_faults(loaded: Loaded, answer: Any) -> None:
    tokens = dataclasses.replace(loaded.case.tokens, importance=lambda _il, _scores, n: answer(n))
    with pytest.raises((AimError, ValueError)) as e:
        loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True)
    assert "\n" not in str(e.value)


def test_callback_exception_comes_out(loaded: Loaded) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("mine")

    tokens = dataclasses.replace(loaded.case.tokens, importance=fail)
    with pytest.raises(ZeroDivisionError, match="mine"):
        loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True)
    assert loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True).stats.n_visual > 0


@pytest.mark.parametrize("how", ["last_query", "random", "grid"])
def test_other_rankings(loaded: Loaded, how: str) -> None:
    tokens = dataclasses.replace(loaded.case.tokens, importance=how)
    paper = loaded.llm.prefill(loaded.prompt, loaded.case.media, loaded.case.tokens, raw=True).trace
    other = loaded.llm.prefill(loaded.prompt, loaded.case.media, tokens, raw=True).trace
    assert [len(k) for k in other.kept] == [len(k) for k in paper.kept]
    assert any(a.tolist() != b.tolist() for a, b in zip(other.kept, paper.kept, strict=True))


@pytest.mark.parametrize("share", [0.5, 0.25, 0.15])
def test_budget(loaded: Loaded, share: float) -> None:
    found = loaded.llm.prefill("What?", loaded.case.media, VisualTokenConfig.budget(share))
    assert share * 0.5 < found.stats.flops_share <= share


@pytest.mark.parametrize(
    "tokens",
    [VisualTokenConfig(prune_layers=(3, 9)), VisualTokenConfig(prune_layers=None, retention=[1.0, 0.5])],
    ids=["l2 beyond the depth", "wrong length"],
)
def test_settings_that_do_not_fit(loaded: Loaded, tokens: VisualTokenConfig) -> None:
    with pytest.raises(UsageError):
        loaded.llm.prefill("What?", loaded.case.media, tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"merge_retain": 0.0},
        {"merge_retain": 1.5},
        {"prune_layers": (5, 5)},
        {"prune_layers": (-1, 5)},
        {"retention": [0.5, 0.8]},
        {"retention": [1.0, -0.1]},
        {"importance": "magic"},
        {"flops_share": 0.0},
    ],
    ids=str,
)
def test_settings_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as e:
        VisualTokenConfig(**options)
    assert "\n" not in str(e.value)


def test_one_visual_token_and_none(loaded: Loaded) -> None:
    everything_goes = VisualTokenConfig(merge_retain=1.0, prune_layers=None, retention=[1.0] + [0.0] * 5)
    found = loaded.llm.prefill("What?", loaded.case.media, everything_goes)
    assert [len(k) for k in found.trace.kept] == [97, 0, 0, 0, 0, 0]
    assert loaded.llm.prefill("What?", [], loaded.case.tokens).stats.n_visual == 0


def test_chat_with_pruning(loaded: Loaded) -> None:
    """Text turns, and a new clip later, for which the context grows; the first answer is that of `generate`."""
    media, tokens = loaded.case.media[0], loaded.case.tokens
    short = GenerateConfig(max_tokens=5)
    with loaded.llm.chat(tokens, generate=short) as chat:
        first = chat.ask("What happens?", [media])
        again = loaded.llm.generate("What happens?", [media], tokens, short)
        assert first.text == again.text
        chat.ask("And then?")
        before = chat.n_ctx
        third = chat.ask("And here?", [media[:3]])
        assert third.stats.n_visual == 3 * 8 + 1
        assert chat.n_ctx > before
        assert chat.ask("go on " * 20).stats.n_visual == 0


def test_chat_until_the_model_ends(loaded: Loaded) -> None:
    def talk() -> None:
        with loaded.llm.chat(loaded.case.tokens, generate=GenerateConfig(max_tokens=2)) as chat:
            for _ in range(400):
                chat.ask("go on " * 20, [loaded.case.media[0][:2]])

    with pytest.raises(ContextError, match="start a new conversation"):
        talk()


def test_unsupported_architecture_is_named(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextModel, "prune_refusal", lambda _: "gemma3 is not among qwen2, llama")
    with pytest.raises(ModelError, match="qwen2, llama"):
        loaded.llm.prefill("What?", loaded.case.media, loaded.case.tokens)
    assert loaded.llm.prefill("What?", loaded.case.media).stats.flops_share == 1.0  # the default falls back to off
