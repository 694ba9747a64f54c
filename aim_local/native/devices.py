"""The devices of ggml's backends, by name, and how many layers go there. Registers the backends: a GPU's is started."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from .installed import library_name
from .library import LIB_FOLDER, llama

_GPU = 1  # GGML_BACKEND_DEVICE_TYPE_GPU, with memory of its own; an integrated one is another type
_SOFTWARE = ("llvmpipe", "lavapipe", "swiftshader", "basic render")  # devices that compute on the CPU


@dataclass(frozen=True)
class Device:
    """kind: ggml's enum ggml_backend_dev_type. total: bytes of its memory."""

    name: str
    description: str
    kind: int
    total: int

    def __str__(self) -> str:
        return f"{self.name}: {self.description} ({self.total / 2**30:.1f} GiB)"

    @property
    def is_own_gpu(self) -> bool:
        """Whether it is a GPU, neither a part of the CPU's chip nor a program on it."""
        return self.kind == _GPU and not any(name in self.description.lower() for name in _SOFTWARE)


def has_gpu() -> bool:
    """Whether ggml can place layers anywhere but on the CPU: built for GPUs, and one is there."""
    return bool(llama.llama_supports_gpu_offload())


def gpu_layers(asked: int | None) -> int:
    """What LoadConfig.n_gpu_layers comes to here: where nothing was asked, all of them (-1) if a GPU is there, else 0.

    Integrated GPUs and software devices are taken only where they were asked for.
    """
    if asked is not None:
        return asked
    return -1 if has_gpu() and any(device.is_own_gpu for device in devices()) else 0


def gpu_names() -> list[str]:
    """The devices that are no CPU; empty where all layers stay on it."""
    return [name for name in device_names() if not name.startswith("CPU")]


def device_names() -> list[str]:
    """ "CPU: AMD EPYC (62.0 GiB)" for every device of ggml's backends."""
    return [str(device) for device in devices()]


def devices() -> list[Device]:
    """Every device of ggml's backends."""
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
    # enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t device);
    kind = base.ggml_backend_dev_type
    kind.restype, kind.argtypes = ctypes.c_int, [ctypes.c_void_p]
    # void ggml_backend_dev_memory(ggml_backend_dev_t device, size_t * free, size_t * total);
    memory, size = base.ggml_backend_dev_memory, ctypes.POINTER(ctypes.c_size_t)
    memory.restype, memory.argtypes = None, [ctypes.c_void_p, size, size]
    found = []
    for index in range(count()):
        device, free, total = get(index), ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(Device(name(device).decode(), describe(device).decode(), kind(device), total.value))
    return found
