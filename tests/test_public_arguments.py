"""The public API refuses wrong arguments at its edge, in one line, and takes numbers of any library as its own.

Walks `aim_local.__all__` and the signatures of its classes: a new argument has to be told what is wrong for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aim_local
from aim_local import (
    Chat,
    FrameSampling,
    GenerateConfig,
    LoadConfig,
    Sampled,
    Trace,
    Turn,
    VisionLLM,
    VisualTokenConfig,
)
from aim_local.errors import AimError, UsageError

RESULTS = {"Answer", "Prefill", "Stats", "TokenLogprob", "Trace"}  # made by the library alone
OTHER = object()
CLIP = Path(aim_local.__file__).parent / "data" / "clips" / "order.mp4"
LONG = "x" * 5000
NO_TEXT, NO_PATH = [3, b"x", OTHER], [3, OTHER, LONG, "a\0b"]
NO_LIST = ["x", 3, {"a": 1}, OTHER, [OTHER]]
NO_OBJECT: list[Any] = [3, "x", {}, {"max_tokens": 3}, [1], True, OTHER]
NO_FUNCTION = [3, "x", [print], OTHER]
NO_FLAG = [0, 1, "yes", None, OTHER, np.zeros(2)]
NO_COUNT = [True, np.True_, 1.0, "3", [3], np.zeros(2), Fraction(3), OTHER, -(10**5000)]
NO_NUMBER = [True, np.True_, "3", [0.5], np.zeros(2), 1j, OTHER, float("nan"), np.float32("nan"), 10**5000]
NO_WORD = ["x", b"auto", 3, 1.5, ["f16"], {}, OTHER, np.zeros(2)]
WRONG: dict[str, list[Any]] = {  # of arguments of methods
    "prompt": [*NO_TEXT, None, "\ud800"], "question": [*NO_TEXT, None, "\ud800"], "system": [*NO_TEXT, "\ud800"],
    "media": [*NO_LIST, None, iter([])], "item": [3, None, OTHER, {}, LONG],
    "raw": NO_FLAG, "answer_next": NO_FLAG,
    "rerank": [0, 1, "yes", OTHER], "model": NO_PATH, "mmproj": NO_PATH, "path": [*NO_PATH, None],
    "config": NO_OBJECT, "tokens": NO_OBJECT, "generate": NO_OBJECT, "sampling": NO_OBJECT,
    "on_text": NO_FUNCTION, "on_token": NO_FUNCTION, "progress": NO_FUNCTION, "should_stop": NO_FUNCTION,
    "answer_tokens": ["ab", b"ab", [1.5], [True], ["1"], [10**9], [-1], {1: 2}, 3, OTHER, iter([1]), np.zeros(2)],
    "n_own": [*NO_COUNT, -1], "n_messages": [*NO_COUNT, None, -1, 10**9], "il": [*NO_COUNT, None, 10**9],
    "history": [*NO_LIST, None, iter([])], "messages": [*NO_LIST, None, iter([])],
    "share_of_full_flops": [*NO_NUMBER, None, 0, 2],
}  # fmt: skip
FIELDS: dict[str, list[Any]] = {  # of configs; those of numbers are found by their type
    **{key: [*NO_WORD, None] for key in ("type_k", "type_v", "vision_precision", "prefill_precision", "reuse_frames")},
    **{key: [*NO_WORD, None] for key in ("merge_by", "weigh", "importance", "pick")},
    "flash_attn": [*NO_FLAG, "on"],
    "cache_media": NO_FLAG,
    "rpc": ["10.0.0.2:50052", None, 3, {}, [3], ["x"], [LONG], ["a:1"] * 2, OTHER],
    "prune_layers": ["x", 3, (1,), (1, 2.5), (True, 3), ("1", "2"), (3, 2), OTHER, np.zeros(2)],
    "retention": ["x", 3, [2], ["1"], [True], [0.1, 0.2], OTHER, iter([1.0])],
    "stop": ["END", None, 3, [""], [3], b"END", OTHER, iter(["x"])],
    "json_schema": ["{}", 3, [], OTHER],
    "grammar": [b"root", 3, None, OTHER, "\ud800"],
    "source": [],  # looked at where it is read
    "sampling": [*NO_OBJECT, None],
    "role": [*NO_WORD, None, "system"],
    "text": [*NO_TEXT, None, "\ud800"],
    "media": ["x", 3, None, {"a": 1}, OTHER, iter([])],
}
NEEDED: dict[type, dict[str, Any]] = {
    Sampled: {"source": "a.mp4", "sampling": FrameSampling()},
    Turn: {"role": "user", "text": "x"},
}
CONFIGS = [LoadConfig, VisualTokenConfig, GenerateConfig, FrameSampling, Sampled, Turn]


def config_cases() -> Iterator[Any]:
    for kind in CONFIGS:
        for field in fields(kind):
            wrong = FIELDS.get(field.name)
            if wrong is None:
                optional = [] if "None" in str(field.type) else [None]
                wrong = [*{"int": NO_COUNT, "float": NO_NUMBER}[str(field.type).split(" ")[0]], *optional]
            for i, value in enumerate(wrong):
                yield pytest.param(kind, field.name, value, id=f"{kind.__name__}.{field.name}-{i}")


def one_line(e: AimError) -> None:
    assert "\n" not in str(e)
    assert len(str(e)) <= 500
    assert "; " in str(e), "what came, and what to give"


@pytest.mark.parametrize(("kind", "name", "value"), list(config_cases()))
def test_fields_of_configs(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**{**NEEDED.get(kind, {}), name: value})
    one_line(caught.value)


def public_methods() -> Iterator[tuple[type, str, str]]:
    """(class, method, argument) of every public class but errors and what the library alone makes."""
    for name in aim_local.__all__:
        kind = getattr(aim_local, name)
        if issubclass(kind, Exception):
            continue
        for method, function in inspect.getmembers(kind, callable):
            if method.startswith("_") or (kind is Chat and method == "load"):  # VisionLLM.load_chat is the public one
                continue
            for argument in inspect.signature(function).parameters:
                if argument not in ("self", "cls"):
                    yield kind, method, argument


def test_all_is_walked() -> None:
    kinds: list[type] = [getattr(aim_local, name) for name in aim_local.__all__]
    made = {kind.__name__ for kind in kinds if is_dataclass(kind)}
    assert made - RESULTS == {kind.__name__ for kind in CONFIGS}
    assert not [found for found in public_methods() if found[2] not in WRONG]


BASE: dict[str, Callable[[], dict[str, Any]]] = {
    "prefill": lambda: {"prompt": "x"}, "generate": lambda: {"prompt": "x"}, "score": lambda: {"prompt": "x"},
    "ask": lambda: {"question": "x"}, "load_chat": lambda: {"path": "none.aimchat"},
    "encode_ahead": lambda: {"item": "none.mp4"}, "render": lambda: {"messages": []},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "method", "argument"), list(public_methods()))
def test_arguments_of_methods(
    kind: type, method: str, argument: str, llm: VisionLLM, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with llm.chat() as chat:
        owners: dict[type, Any] = {VisionLLM: llm, Chat: chat, Trace: llm.prefill("x").trace if kind is Trace else None}
        function = getattr(owners.get(kind, kind), method)
        for value in WRONG[argument]:
            with pytest.raises(AimError) as caught:
                function(**{**BASE.get(method, dict)(), argument: value})
            one_line(caught.value)


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load() as model:
        yield model


@given(st.integers(1, 100), st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64]))
def test_whole_numbers_of_numpy(value: int, kind: Any) -> None:
    same = FrameSampling(kind(value)), GenerateConfig(max_tokens=kind(value)), LoadConfig(n_ctx=kind(value))
    assert same == (FrameSampling(value), GenerateConfig(max_tokens=value), LoadConfig(n_ctx=value))
    layers = VisualTokenConfig(prune_layers=(kind(value), kind(value + 1)), seed=kind(value))
    assert json.loads(json.dumps(asdict(layers)))["prune_layers"] == [value, value + 1]
    for config in same:
        json.dumps(asdict(config))


@given(st.integers(1, 16), st.sampled_from([np.float16, np.float32, np.float64, float, Fraction]))
def test_real_numbers_of_others(sixteenths: int, kind: Any) -> None:
    share, exact = kind(sixteenths / 16), sixteenths / 16
    assert FrameSampling(fps=share, start=share) == FrameSampling(fps=exact, start=exact)
    same = GenerateConfig(temperature=share), VisualTokenConfig(merge_retain=share), VisualTokenConfig.budget(share)
    assert same == (GenerateConfig(temperature=exact), VisualTokenConfig(exact), VisualTokenConfig.budget(exact))
    array: Any = np.array([1, float(share)])
    assert VisualTokenConfig(retention=array) == VisualTokenConfig(retention=(1.0, exact))
    for config in (FrameSampling(fps=share), *same, LoadConfig(vision_merge=share)):
        json.dumps(asdict(config))


def test_numbers_of_numpy_are_used(llm: VisionLLM) -> None:
    """They came as far as the store's key, which is JSON."""
    sampling = FrameSampling(np.int64(3), fps=np.float32(4), start=np.float32(0.5))  # type: ignore[arg-type]
    answer = llm.generate("x", [CLIP], generate=GenerateConfig(max_tokens=np.int64(1)), sampling=sampling)  # type: ignore[arg-type]
    assert answer.stats.n_frames == 3
    assert llm.score("x", answer_tokens=np.array([1, 2])).forced == [1, 2]  # type: ignore[arg-type]
