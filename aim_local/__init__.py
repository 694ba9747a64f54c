"""Local, quantised, fast video-language models."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes longer to import than all else here, and Ctrl-C may come meanwhile
if TYPE_CHECKING:
    from typing import Any

    from .chat import Chat as Chat
    from .chat import Turn as Turn
    from .config import GenerateConfig as GenerateConfig
    from .config import LoadConfig as LoadConfig
    from .config import VisualTokenConfig as VisualTokenConfig
    from .engine.intake import Sampled as Sampled
    from .errors import AimError as AimError
    from .llm import VisionLLM as VisionLLM
    from .media import FrameSampling as FrameSampling
    from .results import Answer as Answer
    from .results import Prefill as Prefill
    from .results import Stats as Stats
    from .results import TokenLogprob as TokenLogprob
    from .results import Trace as Trace

_HOMES = {
    "AimError": "errors",
    "Answer": "results",
    "Chat": "chat",
    "FrameSampling": "media",
    "GenerateConfig": "config",
    "LoadConfig": "config",
    "Prefill": "results",
    "Sampled": "engine.intake",
    "Stats": "results",
    "TokenLogprob": "results",
    "Trace": "results",
    "Turn": "chat",
    "VisionLLM": "llm",
    "VisualTokenConfig": "config",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # on demand: `aim-local --help` must not wait for the native libraries
    if name not in _HOMES:
        raise AttributeError(f"module 'aim_local' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
