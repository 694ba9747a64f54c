"""At a Python prompt: what names there are, what an object shows of itself, what is told of a wrong argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import aim_local
from aim_local import GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.errors import AimError, UsageError
from aim_local.results import Stats, Trace

SHORT = GenerateConfig(max_tokens=2)
CLIP = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1, cache_media=False)) as loaded:
        yield loaded


def test_dir_is_what_is_public() -> None:
    names = [name for name in dir(aim_local) if not name.startswith("__")]
    assert names == sorted(aim_local.__all__)
    assert all(getattr(aim_local, name).__name__ == name for name in names)


def test_what_is_shown_is_one_short_line(llm: VisionLLM) -> None:
    answer = llm.generate("What?", [CLIP], generate=SHORT)
    prefilled, scored = llm.prefill("What?", [CLIP]), llm.score("What?", [CLIP], generate=SHORT)
    with llm.chat(generate=SHORT) as chat:
        chat.ask("What?", [CLIP])
        shown = [repr(thing) for thing in (llm, chat, answer, answer.stats, answer.trace, prefilled, scored)]
    for line in shown:
        assert len(line) <= 200, line
        assert "\n" not in line
        assert "array" not in line
    assert shown[0] == "VisionLLM('demo', qwen2, with vision)"
    assert shown[1].startswith("Chat('demo', 2 messages, ")
    assert shown[2].startswith(f"Answer({answer.text!r}, 4 frames, ")
    assert "visual tokens 65 -> 65" in shown[3]
    assert shown[4] == "Trace(65 -> 65 visual tokens over 12 layers)"
    assert "logits [474]" in shown[5]
    assert repr(Stats()) == "Stats()"
    assert repr(Trace()) == "Trace(nothing seen)"


def test_a_long_answer_is_cut_in_what_is_shown() -> None:
    answer = aim_local.Answer("word\n" * 100, [], Stats(), Trace(), ["a", "b"])
    assert "\n" not in repr(answer)
    assert len(repr(answer)) < 120
    assert repr(answer).endswith("2 warnings)")


# --- wrong arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [None, b"What?", 3, ["What?"]])
def test_a_prompt_must_be_text(prompt: Any, llm: VisionLLM) -> None:
    for call in (llm.generate, llm.prefill, llm.score):
        with pytest.raises(UsageError, match=r"prompt is .*, \w+; give a str"):
            call(prompt)
    with llm.chat() as chat, pytest.raises(UsageError, match=r"question is .*, \w+; give a str"):
        chat.ask(prompt)


@pytest.mark.parametrize("name", ["on_text", "progress", "should_stop"])
def test_callbacks_must_be_functions(name: str, llm: VisionLLM) -> None:
    wrong: dict[str, Any] = {name: "print"}
    with pytest.raises(UsageError, match=f"{name} is 'print'; give a function, or None"):
        llm.generate("What?", **wrong)
    with llm.chat() as chat, pytest.raises(UsageError, match=f"{name} is 'print'"):
        chat.ask("What?", **wrong)


@pytest.mark.parametrize("should_stop", [lambda: "yes", lambda: 1.0, lambda: object()])
def test_should_stop_says_yes_or_no(should_stop: Callable[[], Any], llm: VisionLLM) -> None:
    with pytest.raises(UsageError, match=r"should_stop returned .*; it must return True or False"):
        llm.generate("What?", should_stop=should_stop, generate=SHORT)
    quiet: list[Any] = [lambda: None, lambda: np.bool_(False)]
    for silent in quiet:
        assert llm.generate("What?", should_stop=silent, generate=SHORT).stats.stop_reason != "cancelled"


@pytest.mark.parametrize(
    ("select", "told"),
    [
        (lambda il, scores, n: None, "importance callable returned None; needed are indices"),
        (lambda il, scores, n: scores, r"importance callable returned float32 of shape \(\d+,\)"),
        (lambda il, scores, n: [[0], [1, 2]], r"importance callable returned \[\[0\], \[1, 2\]\]"),
        (lambda il, scores, n: [[i] for i in range(n)], r"importance callable returned int64 of shape \(\d+, 1\)"),
        (lambda il, scores, n: range(n - 1), r"kept \d+ of \d+ visual rows, \d+ were asked for"),
        (lambda il, scores, n: [0] * n, "returned index 0 twice"),
        (lambda il, scores, n: np.arange(n) - 1, r"returned index -1, allowed are 0 to \d+"),
        (lambda il, scores, n: np.arange(n) + 10**6, r"returned index 10\d+, allowed are 0 to \d+"),
    ],
    ids=["None", "scores", "ragged", "columns", "too-few", "twice", "negative", "beyond"],
)
def test_what_an_importance_callable_must_return(select: Any, told: str, llm: VisionLLM) -> None:
    with pytest.raises(AimError, match=told) as e:
        llm.generate("What?", [CLIP], VisualTokenConfig(importance=select), SHORT)
    assert "\n" not in str(e.value)


def test_options_in_the_wrong_place(llm: VisionLLM) -> None:
    wrong: Any = SHORT
    with pytest.raises(UsageError, match=r"tokens is GenerateConfig.*; give a VisualTokenConfig, or None"):
        llm.generate("What?", [CLIP], wrong)
