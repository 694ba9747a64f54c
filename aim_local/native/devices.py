"""The devices of ggml's backends, by name. Registers the backends: a GPU's is started."""

from __future__ import annotations

from . import ggml


def has_gpu() -> bool:
    """Whether ggml can place layers anywhere but on this machine's CPU: built for GPUs, and one is there.

    Not llama_supports_gpu_offload: a build that could reach other machines is one for it.
    """
    return ggml.has_device(ggml.GPU, ggml.INTEGRATED_GPU)


def gpu_names() -> list[str]:
    """The devices that are no CPU; empty where all layers stay on it."""
    return [name for name in device_names() if not name.startswith("CPU")]


def device_names() -> list[str]:
    """ "CPU: AMD EPYC (62.0 GiB)" for every device of ggml's backends."""
    return [f"{found.name}: {found.description} ({found.memory()[1] / 2**30:.1f} GiB)" for found in ggml.devices()]
