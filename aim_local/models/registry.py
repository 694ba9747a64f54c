"""Which family a mmproj belongs to. A new family is one more line here."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError
from .base import Tower, TowerFile
from .gemma3 import Gemma3
from .gemma4 import Gemma4
from .internvl import InternVL
from .llava import Llava
from .llava_next import LlavaNext
from .llava_onevision import LlavaOnevision
from .llava_video import LlavaVideo
from .mtmd import MtmdTower
from .pairs import check_pair
from .qwen2_5_vl import Qwen25VL
from .qwen2_vl import Qwen2VL
from .qwen3_vl import Qwen3VL
from .smolvlm import SmolVLM
from .text import TextModel

# the first that handles a file takes it; any other file goes through mtmd
FAMILIES = (
    *(LlavaVideo, LlavaOnevision, LlavaNext, Llava, Qwen2VL, Qwen25VL, Qwen3VL),
    *(SmolVLM, InternVL, Gemma3, Gemma4),
)


def open_tower(path: Path, text: TextModel, *, weights: bool = True) -> Tower:
    """The tower of a mmproj. weights=False: counts and layouts only. Raises ModelError."""
    file = TowerFile.read(path, text, weights=weights)
    check_pair(file.header, text.header)
    family = next((family for family in FAMILIES if family.handles(file)), MtmdTower)
    if text.config.frame_tokens is not None and not family.sees_any_size:
        able = [card.title for other in FAMILIES if other.sees_any_size for card in other.cards]
        raise UsageError(
            f"frame_tokens is {text.config.frame_tokens}, but {_title(family, file)} makes equally many visual tokens "
            f"of every frame; it is for {', '.join(able)}. "
            "Leave frame_tokens out, and let token merging reduce them (merge_retain)"
        )
    return family(file)


def _title(family: type[Tower], file: TowerFile) -> str:
    """Of a family, as docs/models.md has it."""
    cards = getattr(family, "cards", ())
    return cards[0].title if cards else f"projector {file.projector!r}"
