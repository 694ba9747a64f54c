"""Sizes in the head of a mmproj that its tensors have too, or that have to fit each other.

clip.cpp computes with either, and some are read by nobody, so a wrong one changes the answer or nothing without a word.
Only what the tensors of known projectors say for sure is looked at: SigLIP of 384 pixels has patches of 14, no divisor.
ref: llama.cpp, tools/mtmd/clip.cpp (clip_n_mmproj_embd, clip_model_loader::load_tensors)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..store.gguf_header import GgufHeader
from .head import damaged, projector_of

FIRST_NORM = "v.blk.0.ln1.weight"
Shapes = Mapping[str, tuple[int, ...]]

_PATCHES, _POSITIONS = "v.patch_embd.weight", "v.position_embd.weight"
_QWEN = ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger")
_OF_ONE_SIZE = ("mlp", "llava_onevision", "idefics3", "internvl", "gemma3")  # a position for each patch of a square
_OF_TILES = ("mlp", "llava_onevision")  # a picture is cut into squares of the tower's size
# projector -> its first matrix, which takes a square of patches, and the key that says how many on a side
_SQUARES = {
    "idefics3": ("mm.model.fc.weight", "clip.vision.projector.scale_factor"),
    "internvl": ("mm.model.mlp.1.weight", "clip.vision.projector.scale_factor"),
    **dict.fromkeys(_QWEN, ("mm.0.weight", "clip.vision.spatial_merge_size")),
}
# projector -> its last matrix, and which of its sides is a visual token's
_LAST = {
    "mlp": ("mm.2.weight", 1),
    "llava_onevision": ("mm.2.weight", 1),
    "idefics3": ("mm.model.fc.weight", 1),
    "internvl": ("mm.model.mlp.3.weight", 1),
    "gemma3": ("mm.input_projection.weight", 0),
    **dict.fromkeys(_QWEN, ("mm.2.weight", 1)),
    **dict.fromkeys(("gemma4v", "gemma4uv"), ("mm.input_projection.weight", 1)),
}
_DEEPSTACK = re.compile(r"v\.deepstack\.(\d+)\.")


def check_tower_sizes(header: GgufHeader) -> None:
    """Raises ModelError for a size that the file's own tensors contradict."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    _check_tensors(header, shapes)
    _check_blocks(header)
    _check_pictures(header, shapes)
    _check_squares(header, shapes)
    _check_width(header, shapes)
    _check_layers(header)


def _check_blocks(header: GgufHeader) -> None:
    """Heads of the attention, where there is one."""
    values = header.metadata
    blocks, heads, width = (f"clip.vision.{k}" for k in ("block_count", "attention.head_count", "embedding_length"))
    has_blocks = any(tensor.name.startswith("v.blk.") for tensor in header.tensors)
    if not has_blocks:
        return
    if values.get(blocks) == 0:
        raise damaged(header, blocks, "it has to be 1 to 1000, as the file has weights of layers")
    own_width = values.get("clip.vision.attention.head_dim", 0)
    if heads in values and (values[heads] < 1 or (not own_width and values.get(width, 0) % values[heads])):
        raise damaged(header, heads, f"it has to be 1 or more, and to divide {width}, which is {values.get(width)}")
    shared = "clip.vision.attention.head_count_kv"
    if shared in values and (values[shared] < 1 or values.get(heads, 0) % values[shared]):
        raise damaged(header, shared, f"it has to be 1 or more, and to divide {heads}, which is {values.get(heads)}")


def _check_tensors(header: GgufHeader, shapes: Shapes) -> None:
    width, patch = (f"clip.vision.{k}" for k in ("embedding_length", "patch_size"))
    norm, kernel = shapes.get(FIRST_NORM, ()), shapes.get(_PATCHES, ())
    if len(norm) == 1 and header.metadata.get(width, norm[0]) != norm[0]:
        raise damaged(header, width, f"the weights of the first layer ({FIRST_NORM}) are {norm[0]} wide")
    square = len(kernel) == 4 and kernel[0] == kernel[1]
    if square and header.metadata.get(patch, kernel[0]) != kernel[0]:
        raise damaged(header, patch, f"the weights of a patch ({_PATCHES}) are {kernel[0]} pixels wide")


def _check_pictures(header: GgufHeader, shapes: Shapes) -> None:
    """Pixels of the tower's square, and of the layouts of tiles that pictures are cut into. Behind `_check_tensors`."""
    values, projector = header.metadata, projector_of(header)
    key, grid = "clip.vision.image_size", "clip.vision.image_grid_pinpoints"
    size, patch, pinpoints = values.get(key), values.get("clip.vision.patch_size"), values.get(grid, ())
    places = shapes.get(_POSITIONS, ())[1:2]
    if projector in _OF_ONE_SIZE and places and size is not None and patch:
        n = (size // patch) ** 2
        if places[0] not in (n, n + 1):  # CLIP's class token has a place of its own
            needed = f"its {patch}-pixel patches are {n}, and {_POSITIONS} has {places[0]} places"
            raise damaged(header, key, needed)
    if len(pinpoints) % 2:
        raise damaged(header, grid, "it has to be pairs of width and height")
    if projector in _OF_TILES and size and any(side % size for side in pinpoints):
        raise damaged(header, grid, f"it has to be multiples of {key}, which is {size}")


def _check_squares(header: GgufHeader, shapes: Shapes) -> None:
    """Patches that the projector takes together."""
    values = header.metadata
    matrix, key = _SQUARES.get(projector_of(header), ("", ""))
    width = values.get("clip.vision.embedding_length")
    side = values.get(key, 2 if key.endswith("merge_size") else 0)  # without a word llama.cpp takes 2 in Qwen's
    if matrix in shapes and width and side**2 * width != shapes[matrix][0]:
        raise damaged(header, key, f"{matrix} takes {shapes[matrix][0]} values, and patches have {width} each")


def _check_width(header: GgufHeader, shapes: Shapes) -> None:
    """Of a visual token. Upstream's script for LLaVA writes CLIP's own instead, and 0 for SigLIP."""
    key, projector = "clip.vision.projection_dim", projector_of(header)
    matrix, side = _LAST.get(projector, ("", 0))
    width, shape = header.metadata.get(key, 0), shapes.get(matrix, ())
    is_ours = projector != "mlp" or "aim.preprocess" in header.metadata
    if is_ours and width and len(shape) == 2 and width != shape[side]:
        raise damaged(header, key, f"{matrix} makes visual tokens of {shape[side]} values")


def _check_layers(header: GgufHeader) -> None:
    """Numbers of layers that features are taken from."""
    values = header.metadata
    key, marks = "clip.vision.feature_layer", "clip.vision.is_deepstack_layers"
    n, taken = values.get("clip.vision.block_count", 0), values.get(key, ())
    if projector_of(header) == "mlp" and taken and max(taken) != n:
        raise damaged(header, key, f"the last of them has to be the tower's last layer, {n}")
    found = {int(m[1]) for m in map(_DEEPSTACK.match, (tensor.name for tensor in header.tensors)) if m}
    said = {i for i, is_taken in enumerate(values.get(marks, ())) if is_taken}
    if marks in values and said != found:
        raise damaged(header, marks, f"there are tensors v.deepstack.* of the layers {sorted(found) or 'none'}")
