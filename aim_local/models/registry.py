"""Which family a mmproj belongs to. A new family is one more line here."""

from __future__ import annotations

from pathlib import Path

from .base import Tower, TowerFile
from .llava import Llava
from .llava_next import LlavaNext
from .llava_onevision import LlavaOnevision
from .llava_video import LlavaVideo
from .mtmd import MtmdTower
from .text import TextModel

# the first that handles a file takes it; any other file goes through mtmd
FAMILIES = (LlavaVideo, LlavaOnevision, LlavaNext, Llava)


def open_tower(path: Path, text: TextModel, *, weights: bool = True) -> Tower:
    """The tower of a mmproj. weights=False: counts and layouts only. Raises ModelError."""
    file = TowerFile.read(path, text, weights=weights)
    family = next((family for family in FAMILIES if family.handles(file)), MtmdTower)
    return family(file)
