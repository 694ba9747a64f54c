"""ggml's registry: its backends, their devices, and functions that a backend gives out by name."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from typing import Any

from .binding import bind
from .installed import library_name
from .library import LIB_FOLDER

CPU, GPU, INTEGRATED_GPU = 0, 1, 2  # enum ggml_backend_dev_type

_ggml = ctypes.CDLL(str(LIB_FOLDER / library_name("ggml")))
_base = ctypes.CDLL(str(LIB_FOLDER / library_name("ggml-base")))

# size_t ggml_backend_dev_count(void)
_dev_count = bind(_ggml, "ggml_backend_dev_count", [], c_size_t)
# ggml_backend_dev_t ggml_backend_dev_get(size_t index)
_dev_get = bind(_ggml, "ggml_backend_dev_get", [c_size_t], c_void_p)
# ggml_backend_dev_t ggml_backend_dev_by_type(enum ggml_backend_dev_type type)
_dev_by_type = bind(_ggml, "ggml_backend_dev_by_type", [c_int], c_void_p)
# ggml_backend_reg_t ggml_backend_reg_by_name(const char * name)
_reg_by_name = bind(_ggml, "ggml_backend_reg_by_name", [c_char_p], c_void_p)
# void * ggml_backend_reg_get_proc_address(ggml_backend_reg_t reg, const char * name)
_proc_address = bind(_base, "ggml_backend_reg_get_proc_address", [c_void_p, c_char_p], c_void_p)
# size_t ggml_backend_reg_dev_count(ggml_backend_reg_t reg)
_reg_dev_count = bind(_base, "ggml_backend_reg_dev_count", [c_void_p], c_size_t)
# ggml_backend_dev_t ggml_backend_reg_dev_get(ggml_backend_reg_t reg, size_t index)
_reg_dev_get = bind(_base, "ggml_backend_reg_dev_get", [c_void_p, c_size_t], c_void_p)
# const char * ggml_backend_dev_name(ggml_backend_dev_t device)
_dev_name = bind(_base, "ggml_backend_dev_name", [c_void_p], c_char_p)
# const char * ggml_backend_dev_description(ggml_backend_dev_t device)
_dev_description = bind(_base, "ggml_backend_dev_description", [c_void_p], c_char_p)
# enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t device)
_dev_type = bind(_base, "ggml_backend_dev_type", [c_void_p], c_int)
# void ggml_backend_dev_memory(ggml_backend_dev_t device, size_t * free, size_t * total)
_dev_memory = bind(_base, "ggml_backend_dev_memory", [c_void_p, POINTER(c_size_t), POINTER(c_size_t)], None)
# ggml_backend_t ggml_backend_dev_init(ggml_backend_dev_t device, const char * params)
_dev_init = bind(_base, "ggml_backend_dev_init", [c_void_p, c_char_p], c_void_p)
# ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t device)
_dev_buffer_type = bind(_base, "ggml_backend_dev_buffer_type", [c_void_p], c_void_p)
# void ggml_backend_free(ggml_backend_t backend)
_backend_free = bind(_base, "ggml_backend_free", [c_void_p], None)


class Device:
    """A device of a backend, which ggml keeps until the process ends. handle: its address."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    @property
    def name(self) -> str:
        return str(_dev_name(self.handle).decode())

    @property
    def description(self) -> str:
        return str(_dev_description(self.handle).decode())

    @property
    def type(self) -> int:
        return int(_dev_type(self.handle))

    def memory(self) -> tuple[int, int]:
        """(free, all) bytes. A CPU calls all of the machine's memory free."""
        free, total = c_size_t(), c_size_t()
        _dev_memory(self.handle, byref(free), byref(total))
        return free.value, total.value

    def start(self) -> int:
        """A backend that computes on it, by its address; `free_backend` ends it."""
        backend = int(_dev_init(self.handle, None) or 0)
        _dev_buffer_type(self.handle)  # what ggml asks a device once and keeps
        return backend


def free_backend(backend: int) -> None:
    _backend_free(backend)


def devices() -> list[Device]:
    """Of all backends of this machine."""
    return [Device(_dev_get(index)) for index in range(_dev_count())]


def has_device(*types: int) -> bool:
    """Whether there is one of any of these types."""
    return any(_dev_by_type(found) for found in types)


def registry(name: str) -> int | None:
    """A backend's registry by its name ("CPU", "RPC"); None where the libraries were built without it."""
    found = _reg_by_name(name.encode())
    return None if found is None else int(found)


def devices_of(reg: int) -> Iterator[Device]:
    """The devices of a registry."""
    return (Device(_reg_dev_get(reg, index)) for index in range(_reg_dev_count(reg)))


def function(reg: int, name: str, argtypes: Sequence[Any], restype: Any) -> Callable[..., Any] | None:
    """A function that a backend gives out by name, None where it has none of that name."""
    address = _proc_address(reg, name.encode())
    return None if address is None else ctypes.CFUNCTYPE(restype, *argtypes)(address)
