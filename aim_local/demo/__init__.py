"""The demo world of moving shapes: `held_out` yields clips with known answers, `write_clip` makes the video file."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes longer to import than all else before a Ctrl-C is minded
if TYPE_CHECKING:
    from typing import Any

    from .clips import Clip as Clip
    from .clips import held_out as held_out
    from .clips import is_right as is_right
    from .clips import read_clip as read_clip
    from .clips import write_clip as write_clip
    from .world import FAMILIES as FAMILIES
    from .world import PLAIN as PLAIN
    from .world import WORLDS as WORLDS
    from .world import Question as Question
    from .world import Scene as Scene
    from .world import Shape as Shape
    from .world import World as World
    from .world import draw as draw
    from .world import make_scene as make_scene
    from .world import questions as questions
    from .world import sampled_frames as sampled_frames

_CLIPS = ("Clip", "held_out", "is_right", "read_clip", "write_clip")
_WORLD = (
    "FAMILIES", "PLAIN", "WORLDS", "Question", "Scene", "Shape", "World", "draw", "make_scene", "questions",
    "sampled_frames",
)  # fmt: skip
__all__ = sorted((*_CLIPS, *_WORLD))


def __getattr__(name: str) -> Any:
    # on demand: `python -m aim_local.demo` comes by here before it can say what a Ctrl-C does
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{'clips' if name in _CLIPS else 'world'}", __name__), name)
