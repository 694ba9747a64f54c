"""Which vision towers go with which text towers, as the heads of both files say it.

Upstream's loader compares widths alone; two families of equal width would run together and answer nonsense.
"""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from ..store.gguf_header import GgufHeader

# projectors made for one text tower: its architectures, as upstream's converter writes them. Projectors that are used
# with several (mlp, internvl, idefics3, pixtral ...) are not here.
_TEXT_OF = {
    "qwen2vl_merger": ("qwen2vl",),
    "qwen2.5vl_merger": ("qwen2vl",),
    "qwen2.5o": ("qwen2vl",),
    "qwen3vl_merger": ("qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"),
    "gemma3": ("gemma3",),
    "gemma3nv": ("gemma3n",),
    "gemma4v": ("gemma4",),
    "gemma4uv": ("gemma4",),
    "minicpmv4_6": ("qwen35",),
    "llama4": ("llama4",),
    "llava_onevision": ("qwen2",),
}
# text towers that take their own projectors only
_ALONE = {"qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "gemma3", "gemma3n", "gemma4", "llama4"}


def check_pair(vision: GgufHeader, text: GgufHeader) -> None:
    """Raises ModelError for a projector that was made for another architecture."""
    # a file that has a tower that hears too names each projector apart
    named = vision.metadata.get("clip.projector_type") or vision.metadata.get("clip.vision.projector_type", "")
    projector, architecture = str(named), text.architecture
    fitting = _TEXT_OF.get(projector)
    if fitting is not None and architecture not in fitting:
        raise ModelError(
            f"{vision.path}: its projector {projector!r} belongs to a {' or '.join(fitting)} text tower, {text.path} "
            f"is {architecture}; take the mmproj that was converted with this model"
        )
    own = [p for p, texts in _TEXT_OF.items() if architecture in texts]
    if architecture in _ALONE and projector and fitting is None and not _is_newer(projector, own):
        raise ModelError(
            f"{vision.path}: its projector {projector!r} is none of a {architecture} text tower ({', '.join(own)}); "
            "take the mmproj that was converted with this model"
        )


def _is_newer(projector: str, own: list[str]) -> bool:
    """A projector of the same line that came later, such as a new merger, is for upstream to judge."""
    return any(projector[:4] == known[:4] for known in own)


def pair_doubt(vision: GgufHeader, text: GgufHeader) -> str:
    """Why two files that fit may still be of different models, by what they say of their origin; "" for no doubt."""
    for key in ("general.basename", "general.base_model.0.repo_url", "general.base_model.0.name"):
        theirs, ours = (str(head.metadata.get(key, "")) for head in (vision, text))
        if theirs and ours and _plain(theirs) != _plain(ours):
            return _doubt(vision, text, key, theirs, ours)
    theirs, ours = _named_size(vision.metadata), _named_size(text.metadata)
    if theirs and ours and theirs.lower() != ours.lower():
        return _doubt(vision, text, "general.size_label", theirs, ours)
    return ""


def _doubt(vision: GgufHeader, text: GgufHeader, key: str, theirs: str, ours: str) -> str:
    return (
        f"{vision.path.name} may belong to another model than {text.path.name}: {key} is {theirs!r} there and {ours!r} "
        "here; if answers make no sense, take the mmproj that was converted with this model"
    )


def _named_size(metadata: dict[str, Any]) -> str:
    """The size of the whole model, "3B"; converters count the file's own tensors where the name has none."""
    label, name = (str(metadata.get(f"general.{key}", "")) for key in ("size_label", "name"))
    return label if label and label.lower() in name.lower() else ""


def _plain(text: str) -> str:
    """Spelling apart: dots, dashes and capitals."""
    return "".join(c for c in text.lower() if c.isalnum())
