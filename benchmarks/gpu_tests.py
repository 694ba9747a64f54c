"""A pytest plugin: whatever model a test loads, its layers and its vision tower go to the GPU.

Which limits hold there says tests/limits.py. Tests that count what only the CPU has are left out, and said.

  PYTHONPATH=benchmarks AIM_TEST_ARITHMETIC=float16 python -m pytest -p gpu_tests tests/test_staged_parity.py
"""

from __future__ import annotations

from typing import Any

import pytest

from aim_local.native.library import llama, mtmd

OF_THE_CPU = {  # why a test says nothing of a GPU
    "test_a_prefill_may_end_after_any_node": "a GPU computes a graph whole and is asked between graphs",
    "test_whatever_fails_leaves_the_context": "as above",
    "test_memory_is_the_plan": "a GPU's caches come in blocks of 256 cells, it counts those of the CPU, 8",
    "test_full_context_is_an_error": "as above: its 40 cells would be 256",
    "test_refused[queries-change5-ContextError-the context is full: layers]": "as above: its 43 cells would be 256",
    "test_state_of_other_stages_is_refused": "as above: a context of fewer cells is none",
    "test_compute_bytes_of_a_model_without_weights": "to the byte on the CPU alone: 32 bytes of 2 MB on Vulkan",
}

load_model, open_vision = llama.llama_model_load_from_file, mtmd.mtmd_init_from_file


def load_on_gpu(path: bytes, params: Any) -> Any:
    params.n_gpu_layers = 999
    return load_model(path, params)


def open_on_gpu(path: bytes, model: Any, params: Any) -> Any:
    params.use_gpu = True
    return open_vision(path, model, params)


llama.llama_model_load_from_file, mtmd.mtmd_init_from_file = load_on_gpu, open_on_gpu


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.name in OF_THE_CPU]
    items[:] = [item for item in items if item.name not in OF_THE_CPU]
    config.hook.pytest_deselected(items=left_out)
    for item in left_out:
        print(f"left out: {item.name}: {OF_THE_CPU[item.name]}")
