"""What a staged context refuses, and the exception that each status number becomes."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from staged_models import COUNTS, SHAPE, Models, make_prompt, open_context, run
from tiny_text import write_gguf

from aim_local.errors import AimError, ContextError, ModelError, NativeError, UsageError
from aim_local.native import library, outcome, staged, visual
from aim_local.native.binding import bind, check_size
from aim_local.native.library import libllama, libmtmd, llama
from aim_local.native.staged import StagedContext, StagePlan


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"parts": [5, 24]}, UsageError, "cannot end with visual rows"),
        ({"n_keep": [24, 18, 19, 4, 0]}, UsageError, r"n_keep\[2\] is 19 after 18"),
        ({"n_keep": [24, 18, 11, 4, -1]}, UsageError, r"n_keep\[4\] is -1"),
        ({"n_keep": [20, 18, 11, 4, 0]}, UsageError, "nothing can be pruned before the first layer"),
        ({"n_keep": [24, 18, 11, 4]}, UsageError, "n_keep has 4 stages, the context has 5"),
        ({"token": 128}, UsageError, "row 0 is token 128; the vocabulary has 128"),
        ({"token": -5}, UsageError, "row 0 is token -5"),
        ({"kind": 3}, UsageError, "row 0 is of kind 3"),
        ({"importance": "magic"}, UsageError, "importance 'magic' is unknown"),
        ({"visual": 23}, UsageError, "embd has shape"),
        ({"nan": True}, NativeError, "not finite"),
    ],
    ids=str,
)
def test_bad_prefill(models: Models, change: dict[str, Any], error: type[Exception], words: str) -> None:
    prompt = make_prompt(SHAPE, change.get("parts", [5, 24, 6]))
    rows, ids, embd = prompt.rows, prompt.ids, prompt.visual.numpy()
    ids[0] = change.get("token", ids[0])
    rows[0] = change.get("kind", rows[0])
    embd = embd[: change.get("visual", 24)]
    if "nan" in change:
        embd[3, 3] = np.nan
    with open_context(models, SHAPE, COUNTS) as ctx:
        n_keep, importance = change.get("n_keep", (24, 18, 11, 4, 0)), change.get("importance", "pagerank")
        with pytest.raises(error, match=words):
            ctx.prefill(rows, ids, embd, n_keep, importance=importance)
        assert ctx.n_past == 0
        run(ctx, make_prompt(SHAPE, [5, 24, 6]), COUNTS)


def test_empty_prefill(models: Models) -> None:
    with open_context(models, SHAPE, COUNTS) as ctx, pytest.raises(UsageError, match="at least one new row"):
        ctx.prefill([], [], None, (0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("il_begin", "n_cells", "words"),
    [
        ((1, 3), (32, 16), "stage 0 has layers 1 to 2"),
        ((0, 3, 3), (32, 16, 8), "stage 1 has layers 3 to 2"),
        ((0, 6), (32, 16), "stage 1 has layers 6 to 5"),
        ((0, 9), (32, 16), "stage 0 has layers 0 to 8"),
        ((0, 3), (16, 32), "stage 1 has 32 cells"),
        ((0,), (0,), "stage 0 has 0 cells"),
        ((), (), "0 stages for 6 layers"),
        ((0, 1), (8,), "2 stages have 1 cell counts"),
    ],
)
def test_bad_plan(models: Models, il_begin: tuple[int, ...], n_cells: tuple[int, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StagedContext(models.load(SHAPE), StagePlan(il_begin, n_cells))


def test_other_architectures_are_named(models: Models, tmp_path: Path) -> None:
    shape = replace(SHAPE, arch="qwen2")
    twin = models.twin(shape)
    path = tmp_path / "other.gguf"
    write_gguf(twin, replace(shape, arch="internlm2"), path)
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    assert model, "internlm2 has the tensors of llama"
    assert "internlm2; supported are llama, qwen2, qwen2vl, qwen3, qwen3vl" in staged.unsupported_reason(model)
    with pytest.raises(ModelError, match="supported are llama, qwen2, qwen2vl"):
        StagedContext(model, StagePlan((0,), (32,)))
    llama.llama_model_free(model)
    assert staged.unsupported_reason(models.load(SHAPE)) == ""


def test_quantised_v_without_flash_attention(models: Models) -> None:
    with pytest.raises(NativeError, match="could not make the context"):
        open_context(models, replace(SHAPE, d_head=64), COUNTS, type_v="q8_0", flash_attn=False)


# --- status numbers and struct sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (outcome.INVALID, UsageError),
        (outcome.UNSUPPORTED, ModelError),
        (outcome.CONTEXT_FULL, ContextError),
        (outcome.CALLBACK, NativeError),
        (outcome.ABORTED, NativeError),
        (outcome.FAILED, NativeError),
        (outcome.NO_MEMORY, NativeError),
        (-99, NativeError),
    ],
)
def test_a_status_number_is_an_exception(number: int, error: type[AimError]) -> None:
    found = outcome.error_of(number, "why")
    assert type(found) is error
    assert str(found) == (outcome.NO_ROOM if number == outcome.NO_MEMORY else "why")


def test_numbers_are_those_of_the_header() -> None:
    header = (Path(__file__).parents[1] / "patches/overlay/include/aim-status.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"AIM_STATUS_(\w+) *= *(-?\d+)", header)}
    assert numbers == {name: value for name, value in vars(outcome).items() if name.isupper() and type(value) is int}


def test_null_is_told_by_its_number() -> None:
    """Both libraries, and each keeps its own: a call into one does not change what the other says."""
    assert staged.unsupported_reason(0) == "model is null"
    with pytest.raises(UsageError, match="context is null"):
        visual.projector(None)
    assert type(library.LLAMA.error()) is UsageError
    assert library.LLAMA.text() == "model is null"
    assert visual.pool_side(3) == 2
    assert library.MTMD.text() == ""


class _Other(ctypes.Structure):
    _fields_ = (("one", ctypes.c_int32),)


@pytest.mark.parametrize(
    ("lib", "name"),
    [
        (libllama, "aim_prefill_params_size"),
        (libllama, "aim_stage_info_size"),
        (libmtmd, "aim_anyres_layout_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_struct_of_another_size_is_refused(lib: ctypes.CDLL, name: str) -> None:
    with pytest.raises(NativeError, match=rf"{name}\(\) is \d+ bytes, aim_local was written for 4; reinstall"):
        check_size(lib, name, _Other)


def test_a_missing_function_is_refused() -> None:
    with pytest.raises(NativeError, match="has no aim_of_tomorrow"):
        bind(libllama, "aim_of_tomorrow", [])


def test_scores_bytes_of_less_than_no_rows() -> None:
    with pytest.raises(UsageError, match="-1 rows"):
        staged.score_bytes(-1, 1, 1, 1)
