"""The devices of ggml's backends, by name, and how many layers go there. Registers the backends: a GPU's is started."""

from __future__ import annotations

from dataclasses import dataclass

from . import ggml

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
        return self.kind == ggml.GPU and not any(name in self.description.lower() for name in _SOFTWARE)


def has_gpu() -> bool:
    """Whether ggml can place layers anywhere but on this machine's CPU: built for GPUs, and one is there.

    Not llama_supports_gpu_offload: a build that could reach other machines is one for it.
    """
    return ggml.has_device(ggml.GPU, ggml.INTEGRATED_GPU)


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
    return [Device(found.name, found.description, found.type, found.memory()[1]) for found in ggml.devices()]
