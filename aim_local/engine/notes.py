"""What is said once: at loading, of files of doubtful origin; beside an answer, of a video whose tokens stay whole."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import VisualTokenConfig
from ..media import MediaShape
from ..models.mtmd import MtmdTower
from ..models.pairs import pair_doubt
from ..store.gguf_header import read_header
from .model import Model


def load_notes(model: Model) -> list[str]:
    """Lines for the user when a model is loaded; none for most models."""
    if model.tower is None or model.paths.mmproj is None:
        return []
    doubt = pair_doubt(read_header(model.paths.mmproj), model.text.header)
    return [doubt] if doubt else []


def unreduced_notes(model: Model, shapes: Sequence[MediaShape], asked: VisualTokenConfig | None) -> list[str]:
    """Why a video's visual tokens were computed in full, where nobody asked and it is not the family's own choice.

    shapes: of the new media; asked: None for the default.
    """
    tower = model.tower
    if asked is not None or not isinstance(tower, MtmdTower) or all(shape.kind != "video" for shape in shapes):
        return []
    return [f"visual tokens of {model.name} are not reduced: {tower.unreduced}"]
