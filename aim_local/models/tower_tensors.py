"""Which tensors the towers of known families have, by projector: no others, and none of them missing.

clip.cpp asks for most tensors of any tower and uses what it finds, so a norm too many or too few changes rows without a
word. Which layers have a bias, and shapes: head.py. Files of projectors that are not here go to clip.cpp as they are.
ref: llama.cpp, tools/mtmd/clip-impl.h (TN_*) and clip.cpp (clip_model_loader::load_tensors); conversion/ for what
files have that its converter writes
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..store.gguf_header import GgufHeader
from .head import damaged_tensor, projector_of

_NUMBER = re.compile(r"^v\.(blk|deepstack)\.\d+\.")  # of a layer
_HEARS = ("a.", "mm.a.")  # of a tower that hears, beside the one that sees
PRE_NORM = "v.pre_ln.weight"


@dataclass(frozen=True)
class Tensors:
    """Names, with * for the number of a layer. needed: in every file; other: that a file may have."""

    needed: frozenset[str]
    other: frozenset[str]


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.{end}" for name in names for end in ("weight", "bias"))


def _weights(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.weight" for name in names)


def _layer(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"v.blk.*.{name}" for name in names)


def _of(needed: Iterable[str], other: Iterable[str] = ()) -> Tensors:
    return Tensors(frozenset(needed), frozenset(other))


_QKV = ("attn_q", "attn_k", "attn_v")
_MATRICES = ("attn_out", "ffn_up", "ffn_down")
_PATCHES, _PLACES = "v.patch_embd.weight", "v.position_embd.weight"
_PLAIN_LAYER = _layer(_both(*_QKV, *_MATRICES, "ln1", "ln2"))
_SIGLIP = (_PATCHES, "v.patch_embd.bias", _PLACES, *_PLAIN_LAYER)
_POST_NORM = _both("v.post_ln")
_NEWLINES = ("v.image_newline", "model.image_newline")
_PROJECTION = _both(*(f"mm.{i}" for i in range(5)))  # Yi's has norms between two matrices
_LIMITS = _layer(
    f"{name}.{of}_{end}"
    for name in (*_QKV, *_MATRICES, "ffn_gate")
    for of in ("input", "output")
    for end in ("min", "max")
)
_JOINED = _layer(_both("attn_qkv"))  # in place of queries, keys and values
_CLIP = _of(
    (_PATCHES, _PLACES, "v.class_embd", *_both("v.pre_ln"), *_PLAIN_LAYER, "mm.0.weight"), (*_PROJECTION, *_NEWLINES)
)
_OTHER_VITS = _of(  # SigLIP, DINOv2
    (_PATCHES, _PLACES, *_PLAIN_LAYER, "mm.0.weight"),
    ("v.class_embd", "v.patch_embd.bias", *_POST_NORM, *_PROJECTION, *_NEWLINES),
)
_QWEN_NEEDED = (_PATCHES, f"{_PATCHES}.1", "v.post_ln.weight", *_both("mm.0", "mm.2"))
_KNOWN = {
    "llava_onevision": _of((*_SIGLIP, *_both("mm.0", "mm.2")), ("v.image_newline",)),
    "idefics3": _of((*_SIGLIP, *_POST_NORM, "mm.model.fc.weight")),
    "gemma3": _of((*_SIGLIP, *_POST_NORM, "mm.input_projection.weight", "mm.soft_emb_norm.weight")),
    "internvl": _of(
        (
            *(_PATCHES, "v.patch_embd.bias", _PLACES, "v.class_embd"),
            *_layer(_weights(*_QKV, *_MATRICES, "ln1", "ln2", "ls1", "ls2")),
            *_both("mm.model.mlp.0", "mm.model.mlp.1", "mm.model.mlp.3"),
        ),
        # the norms of the 6-billion tower have no bias, and it has two more
        (*_PLAIN_LAYER, *_layer(_weights("attn_q_norm", "attn_k_norm"))),
    ),
    "qwen2vl_merger": _of(
        (*_QWEN_NEEDED, "v.post_ln.bias", *_layer(_both(*_MATRICES, "ln1", "ln2"))), (*_PLAIN_LAYER, *_JOINED)
    ),
    "qwen2.5vl_merger": _of(
        (*_QWEN_NEEDED, *_layer((*_both(*_MATRICES, "ffn_gate"), *_weights("ln1", "ln2")))),
        (*_layer(_both(*_QKV)), *_JOINED),
    ),
    "qwen3vl_merger": _of(
        (*_QWEN_NEEDED, *_POST_NORM, "v.patch_embd.bias", _PLACES, *_layer(_both(*_MATRICES, "ln1", "ln2"))),
        (*_PLAIN_LAYER, *_JOINED, *_both(*(f"v.deepstack.*.{part}" for part in ("norm", "fc1", "fc2")))),
    ),
    "gemma4v": _of(
        (
            *(_PATCHES, _PLACES, "mm.input_projection.weight"),
            *_layer(_weights(*_QKV, *_MATRICES, "ffn_gate", "ln1", "ln2")),
            *_layer(_weights("attn_q_norm", "attn_k_norm", "attn_post_norm", "ffn_post_norm")),
        ),
        ("v.std_bias", "v.std_scale", *_LIMITS),
    ),
    "gemma4uv": _of(
        (
            *(_PATCHES, "v.patch_embd.bias", _PLACES, "mm.input_projection.weight"),
            *_both(*(f"v.patch_norm.{i}" for i in (1, 2, 3))),
        )
    ),
}
KNOWN_PROJECTORS = frozenset({"mlp", *_KNOWN})
_TOGETHER = (
    *({f"{name}.weight", f"{name}.bias"} for name in ("v.post_ln", "v.pre_ln")),
    {"v.std_bias", "v.std_scale"},
    {f"v.blk.*.{name}.weight" for name in ("attn_q_norm", "attn_k_norm")},
)


def check_tower_tensors(header: GgufHeader) -> None:
    """Raises ModelError for a tensor that the family never has, and for one that it always has and that is missing."""
    names = {_NUMBER.sub(r"v.\1.*.", tensor.name): tensor.name for tensor in header.tensors}
    projector = projector_of(header)
    known = _KNOWN.get(projector)
    if projector == "mlp":
        known = _CLIP if PRE_NORM in names else _OTHER_VITS
    if known is None:
        return
    for pattern, name in names.items():
        if pattern not in known.needed | known.other and not name.startswith(_HEARS):
            raise damaged_tensor(header, name, f"is none that towers with the projector {projector!r} have")
    missing = sorted(known.needed - set(names))
    for group in _TOGETHER:
        found = group & set(names)
        if found and group <= known.needed | known.other:
            missing += sorted(group - found)
    if missing:
        name = missing[0].replace("*", "0")
        raise damaged_tensor(header, name, f"is missing, and towers with the projector {projector!r} have it")
