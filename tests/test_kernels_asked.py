"""A precision that was asked for and is not there is told, never replaced without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import runtime_case
from runtime_case import F32, video

from aim_local import VisionLLM
from aim_local.errors import NativeError
from aim_local.native import kernels

checkpoint, model = runtime_case.checkpoint, runtime_case.model


@pytest.mark.parametrize("precision", ["auto", "exact", "bf16", "int8"])
@pytest.mark.parametrize("name", ["", *kernels.NAMES])
def test_a_precision_that_is_not_there_is_told(model: Path, name: str, precision: str) -> None:
    if name not in ("", *there()):
        pytest.skip(f"this CPU has no kernels {name}")
    kernels.use_kernels(name)
    try:
        with VisionLLM.load(model, config=replace(F32, vision_precision=precision, cache_media=False)) as llm:
            answer = llm.generate("What?", [video(2)])
    finally:
        kernels.use_kernels(None)
    told = [line for line in answer.warnings if "vision_precision" in line]
    lacks = {"": ("bf16", "int8"), "avx512": ("int8",), "avx2": ("int8",)}.get(name, ())
    assert bool(told) == (precision in lacks), answer.warnings
    if told:
        assert told == [f"vision_precision is {precision}, but the vision tower is computed in {computed(name)} here"]


def computed(name: str) -> str:
    return f"int16 ({name})" if name else kernels.EXACT


def there() -> list[str]:
    found = []
    for name in kernels.NAMES:
        try:
            kernels.use_kernels(name)
        except NativeError:  # this CPU lacks them
            continue
        found.append(name)
    kernels.use_kernels(None)
    return found
