"""Imports that need an extra: where a package is missing, one line says which and how to get it."""

from __future__ import annotations

import importlib
from types import ModuleType

from aim_local.errors import AimError

EXTRA = frozenset({"torch", "transformers", "safetensors", "tokenizers", "sentencepiece"})
SERVE_EXTRA = frozenset({"fastapi", "starlette", "pydantic", "uvicorn", "python_multipart", "prometheus_client"})


class MissingExtraError(AimError):
    """A package of an extra is not installed."""


def import_converter() -> ModuleType:
    """aim_local.convert. Raises MissingExtraError."""
    try:
        return importlib.import_module("aim_local.convert")
    except ModuleNotFoundError as e:
        raise missing(e) from e


def missing(e: ModuleNotFoundError) -> BaseException:
    """The error to raise for `e`: ours for a package of the extra, else `e` itself, which is a fault of ours."""
    package = (e.name or "").split(".")[0]
    if package not in EXTRA:
        return e
    return MissingExtraError(f"converting needs {package}; run in the source folder: pip install -e '.[convert]'")


def import_server() -> ModuleType:
    """aim_local.server.serving. Raises MissingExtraError."""
    try:
        return importlib.import_module("aim_local.server.serving")
    except ModuleNotFoundError as e:
        package = (e.name or "").split(".")[0]
        if package not in SERVE_EXTRA:
            raise
        said = f"serving needs {package}; run in the source folder: pip install -e '.[serve]'"
        raise MissingExtraError(said) from e
