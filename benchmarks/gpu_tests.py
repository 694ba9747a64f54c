"""A pytest plugin: whatever model a test loads, its layers and its vision tower go to the GPU.

The tests' limits are made for float32 on a CPU. A GPU multiplies float32 in 10 bits (TF32) and caches in float16, so
some of them are missed; by how much is what is to be seen.

  PYTHONPATH=benchmarks python -m pytest -p gpu_tests tests/test_staged_parity.py
"""

from __future__ import annotations

from typing import Any

from aim_local.native.library import llama, mtmd

load_model, open_vision = llama.llama_model_load_from_file, mtmd.mtmd_init_from_file


def load_on_gpu(path: bytes, params: Any) -> Any:
    params.n_gpu_layers = 999
    return load_model(path, params)


def open_on_gpu(path: bytes, model: Any, params: Any) -> Any:
    params.use_gpu = True
    return open_vision(path, model, params)


llama.llama_model_load_from_file, mtmd.mtmd_init_from_file = load_on_gpu, open_on_gpu
