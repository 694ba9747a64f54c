"""What is said once, when a model is loaded: files of doubtful origin, and visual tokens left unreduced."""

from __future__ import annotations

from ..config import VisualTokenConfig
from ..errors import ModelError, UsageError
from ..models.mtmd import MtmdTower
from ..models.pairs import pair_doubt
from ..store.gguf_header import read_header
from .model import Model
from .plan import check_tokens


def load_notes(model: Model) -> list[str]:
    """Lines for the user; none for most models."""
    if model.tower is None or model.paths.mmproj is None:
        return []
    doubt = pair_doubt(read_header(model.paths.mmproj), model.text.header)
    return [line for line in (doubt, _unreduced(model)) if line]


def _unreduced(model: Model) -> str:
    """Why a video's visual tokens are computed in full here, where that is not the family's own choice."""
    tower = model.tower
    if isinstance(tower, MtmdTower):
        return f"visual tokens of {model.name} are not reduced: {tower.unreduced}"
    if tower is None or not tower.reduces_by_default:
        return ""
    try:
        check_tokens(model, VisualTokenConfig.auto())
    except (UsageError, ModelError) as e:
        return f"visual tokens of {model.name} are not reduced: {e}"
    return ""
