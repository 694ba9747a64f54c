"""Which vision towers go with which text towers, as the heads of both files say it.

Upstream's loader compares widths alone; two families of equal width would run together and answer nonsense.
"""

from __future__ import annotations

import re
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
_WITH_DEEPSTACK = "qwen3vl_merger"
_DEEPSTACK = re.compile(r"v\.deepstack\.(\d+)\.")
_ORIGIN = "aim.origin"  # `convert` writes a mark of the checkpoint into both of its files
# words in general.name that say how the file was made or which half it is, not of which model
_QUANTISED = re.compile(r"(?<![a-z0-9])((i?q|tq)\d\w*|mxfp4|bf16|fp?16|fp?32|imatrix|i1|ud)(?![a-z0-9])")
_HALF = {
    *("gguf", "mmproj", "vision", "visual", "image", "video", "text", "language"),
    *("tower", "encoder", "projector", "model", "hf", "of", "for", "the"),
}
_TOWERS = ("clip", "siglip", "vit")  # scripts of old name the tower that the projector was trained with


def check_pair(vision: GgufHeader, text: GgufHeader) -> None:
    """Raises ModelError for a projector that was made for another architecture, or in a conversion of another model."""
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
    if projector == _WITH_DEEPSTACK:
        _check_deepstack(vision, text)
    theirs, ours = (str(head.metadata.get(_ORIGIN, "")) for head in (vision, text))
    if theirs and ours and theirs != ours:
        raise ModelError(
            f"{vision.path}: was converted from another checkpoint than {text.path} ({_ORIGIN} is {theirs[:8]} there "
            f"and {ours[:8]} here); take the mmproj that was converted with this model"
        )


def _check_deepstack(vision: GgufHeader, text: GgufHeader) -> None:
    """The first layers of a text tower add features that its vision tower makes, one for each."""
    made = {m[1] for m in map(_DEEPSTACK.match, (tensor.name for tensor in vision.tensors)) if m}
    key = f"{text.architecture}.n_deepstack_layers"
    taken = text.metadata.get(key, 0)
    if vision.tensors and len(made) != taken:
        raise ModelError(
            f"{text.path}: {key} is {taken}, and {vision.path} makes features for {len(made)} layers "
            "(v.deepstack.*); take the mmproj that was converted with this model"
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
    both_based = all(head.metadata.get("general.basename") for head in (vision, text))
    return "" if both_based else _named_apart(vision, text)


def _named_apart(vision: GgufHeader, text: GgufHeader) -> str:
    """The doubt where names differ in more than quantisation; a mark of their common origin is above names."""
    if vision.metadata.get(_ORIGIN) and vision.metadata.get(_ORIGIN) == text.metadata.get(_ORIGIN):
        return ""
    theirs, ours = (str(head.metadata.get("general.name", "")) for head in (vision, text))
    a, b = _model_named(theirs), _model_named(ours)
    if not a or not b or a in b or b in a or any(tower in a for tower in _TOWERS):
        return ""
    return _doubt(vision, text, "general.name", theirs, ours)


def _model_named(name: str) -> str:
    """What a file's name says of its model, spelling apart."""
    words = re.findall(r"[^\W_]+", _QUANTISED.sub(" ", name.lower()))
    return "".join(word for word in words if word not in _HALF)


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
