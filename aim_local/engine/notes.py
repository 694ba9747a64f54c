"""What is said once: at loading, of files of doubtful origin; beside an answer, of a video whose tokens stay whole."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import VisualTokenConfig
from ..media import MediaShape
from ..models.mtmd import MtmdTower
from ..models.pairs import pair_doubt
from ..models.special_tokens import left_out
from ..models.vocabulary import MODEL, SPLITS
from ..store.gguf_header import GgufHeader, read_header
from .model import Model


def load_notes(model: Model) -> list[str]:
    """Lines for the user when a model is loaded; none for most models."""
    found = _text_notes(model.text.header)
    if model.tower is not None and model.paths.mmproj is not None:
        doubt = pair_doubt(read_header(model.paths.mmproj), model.text.header)
        found += [doubt] if doubt else []
    return found


def _text_notes(header: GgufHeader) -> list[str]:
    values = header.metadata
    found = [
        f"{header.path}: {key} is {values[key]}, which is no token of its vocabulary; it is left out"
        for key in left_out(header)
    ]
    if values.get(MODEL) == "gpt2" and not values.get(SPLITS):
        found.append(
            f"{header.path}: does not say how its tokenizer splits texts ({SPLITS}, missing before May 2024), so "
            "answers may be worse; convert the model again, or take a newer file"
        )
    return found


def unreduced_notes(model: Model, shapes: Sequence[MediaShape], asked: VisualTokenConfig | None) -> list[str]:
    """Why a video's visual tokens were computed in full, where nobody asked and it is not the family's own choice.

    shapes: of the new media; asked: None for the default.
    """
    tower = model.tower
    if asked is not None or not isinstance(tower, MtmdTower) or all(shape.kind != "video" for shape in shapes):
        return []
    return [f"visual tokens of {model.name} are not reduced: {tower.unreduced}"]
