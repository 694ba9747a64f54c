"""Our C functions with handles that were freed, are of another kind, or never were any: a status, no crash."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from staged_models import SHAPE, Models, stages_of

from aim_local.errors import AimError, UsageError
from aim_local.native import kernels, staged, stop, visual
from aim_local.native.library import LLAMA, MTMD, llama, mtmd
from aim_local.native.outcome import INVALID
from aim_local.native.staged import StagedContext
from aim_local.store.names import resolve

CONTEXT: dict[str, Callable[[Any], object]] = {
    "aim_n_stages": staged._n_stages,
    "aim_next_id": staged._next_id,
    "aim_held_row_bytes": staged._held_row_bytes,
    "aim_compute_bytes": staged._compute_bytes,
    "aim_get_stage": lambda ctx: staged._get_stage(ctx, 0, ctypes.byref(staged._StageInfo())),
    "aim_get_kept": lambda ctx: staged._get_kept(ctx, 0, None, 0),
    "aim_get_importance": lambda ctx: staged._get_importance(ctx, 0, None, 0),
    "aim_prefill": lambda ctx: staged._prefill(ctx, ctypes.byref(staged._PrefillParams())),
    "aim_check_state": lambda ctx: staged._check_state(ctx, 1, 1, 0),
    "aim_set_stop": lambda ctx: stop._set_stop(ctx, stop.stop_callback(), None),
    "aim_set_precision": lambda ctx: kernels._set_context_precision(ctx, 0),
}
TOWER: dict[str, Callable[[Any], object]] = {
    "aim_mtmd_tile_side": visual._tile_side,
    "aim_mtmd_n_embd": visual._n_embd,
    "aim_mtmd_n_features": visual._n_features,
    "aim_mtmd_has_tiles": visual._has_tiles,
    "aim_mtmd_merges": visual._merges,
    "aim_mtmd_precision": kernels._precision,
    "aim_mtmd_newline": lambda ctx: visual._newline(ctx, None),
    "aim_mtmd_encode": lambda ctx: visual._encode(ctx, None, 1, None),
    "aim_mtmd_set_stop": lambda ctx: stop._mtmd_set_stop(ctx, stop.stop_callback(), None),
}


@pytest.fixture(scope="module")
def handles(models: Models) -> dict[str, int]:
    """Addresses: of a context that was freed, of one whose model was, of a model, of a number that is none."""
    path = str(models.path(SHAPE)).encode()
    lost = llama.llama_model_load_from_file(path, llama.llama_model_default_params())
    orphan = StagedContext(lost, stages_of((8, 8, 8, 4, 4, 4), 8))
    freed = StagedContext(models.load(SHAPE), stages_of((8, 8, 8, 4, 4, 4), 8))
    addresses = {"freed": freed.ctx, "orphan": orphan.ctx, "a model": models.load(SHAPE), "nothing": 0x1000, "null": 0}
    orphan.owned._pointers.clear()  # it is not freed: that would need its model
    llama.llama_model_free(lost)
    freed.close()
    return addresses


@pytest.mark.parametrize("name", CONTEXT)
@pytest.mark.parametrize("kind", ["freed", "orphan", "a model", "nothing", "null"])
def test_a_context_that_is_none(handles: dict[str, int], name: str, kind: str) -> None:
    assert CONTEXT[name](handles[kind]) == INVALID
    assert "freed, or is none" in LLAMA.text() or "is null" in LLAMA.text()


@pytest.mark.parametrize("kind", ["freed", "nothing", "null"])
def test_a_model_that_is_none(handles: dict[str, int], kind: str) -> None:
    with pytest.raises(UsageError, match="model"):
        StagedContext(handles[kind], stages_of((8, 8, 8, 4, 4, 4), 8))
    assert "model" in staged.unsupported_reason(handles[kind])


def test_a_tower_that_is_none(models: Models) -> None:
    """Freed by hand, as a program in C would."""
    paths = resolve()
    model = llama.llama_model_load_from_file(str(paths.model).encode(), llama.llama_model_default_params())
    params = mtmd.mtmd_context_params_default()
    params.use_gpu = params.warmup = False
    tower = ctypes.cast(mtmd.mtmd_init_from_file(str(paths.mmproj).encode(), model, params), ctypes.c_void_p)
    assert int(str(TOWER["aim_mtmd_has_tiles"](tower))) == 1
    mtmd.mtmd_free(tower)
    for given in (tower, ctypes.c_void_p(model), ctypes.c_void_p(0x1000), None):
        for name, function in TOWER.items():
            assert function(given) == INVALID, name
            assert "mtmd context" in MTMD.text()
        with pytest.raises(AimError, match="mtmd context"):
            visual.projector(given)
    llama.llama_model_free(model)
