"""The devices of ggml's backends, by name. Registers the backends: a GPU's is started."""

from __future__ import annotations

import ctypes

from .installed import library_name
from .library import LIB_FOLDER, llama


def has_gpu() -> bool:
    """Whether ggml can place layers anywhere but on the CPU: built for GPUs, and one is there."""
    return bool(llama.llama_supports_gpu_offload())


def gpu_names() -> list[str]:
    """The devices that are no CPU; empty where all layers stay on it."""
    return [name for name in device_names() if not name.startswith("CPU")]


def device_names() -> list[str]:
    """ "CPU: AMD EPYC (62.0 GiB)" for every device of ggml's backends."""
    ggml = ctypes.CDLL(str(LIB_FOLDER / library_name("ggml")))
    base = ctypes.CDLL(str(LIB_FOLDER / library_name("ggml-base")))
    # size_t ggml_backend_dev_count(void); ggml_backend_dev_t ggml_backend_dev_get(size_t index);
    count, get = ggml.ggml_backend_dev_count, ggml.ggml_backend_dev_get
    count.restype, count.argtypes = ctypes.c_size_t, []
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    # const char * ggml_backend_dev_name(ggml_backend_dev_t device); ..._description(ggml_backend_dev_t device);
    name, describe = base.ggml_backend_dev_name, base.ggml_backend_dev_description
    for function in (name, describe):
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    # void ggml_backend_dev_memory(ggml_backend_dev_t device, size_t * free, size_t * total);
    memory, size = base.ggml_backend_dev_memory, ctypes.POINTER(ctypes.c_size_t)
    memory.restype, memory.argtypes = None, [ctypes.c_void_p, size, size]
    found = []
    for index in range(count()):
        device, free, total = get(index), ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(f"{name(device).decode()}: {describe(device).decode()} ({total.value / 2**30:.1f} GiB)")
    return found
