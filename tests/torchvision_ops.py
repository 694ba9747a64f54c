"""Makes torchvision importable beside a torch without CUDA; transformers imports it wherever it is installed.

Its usual wheel is built for CUDA: beside a CPU torch its C++ operators cannot be loaded, and its import ends at
`torchvision::nms`, which nothing here calls. Named beforehand, the rest, which is plain torch, imports.
Importing this module is enough; it imports neither of them.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import pytest

_KEPT: list[object] = []  # a library's names go with it


class _BeforeTorchvision:
    """Names the operators when torchvision is about to be imported, and leaves the import to the others."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision" and not _KEPT:
            found = PathFinder.find_spec(name, None)
            if found is not None and found.origin is not None:
                _KEPT.append(name_operators(Path(found.origin).with_name("_C.so")))
        return None


def name_operators(library: Path) -> object:
    import torch

    try:
        torch.ops.load_library(library)
    except OSError:
        ops = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            ops.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return ops
    return library


def need_torchvision() -> None:
    """Skips the calling test module where torchvision or num2words is not installed."""
    for package in ("torchvision", "num2words"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed", allow_module_level=True)


sys.meta_path.insert(0, _BeforeTorchvision)
