"""Makes torchvision importable beside a torch without CUDA; transformers' video processors need its resizing.

Its usual wheel is built for CUDA: beside a CPU torch its C++ operators cannot be loaded, and its import ends at
`torchvision::nms`, which nothing here calls. Named beforehand, the rest, which is plain torch, imports.
"""

import importlib.util

import pytest
import torch

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def need_torchvision() -> None:
    """Skips the calling test module where torchvision or num2words is not installed."""
    for package in ("torchvision", "num2words"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed", allow_module_level=True)
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
