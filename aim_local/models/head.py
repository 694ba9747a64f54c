"""What may stand in the head of a mmproj: of which kind a value is, and between which limits.

llama.cpp's vision loader ends the process at a value of another kind, and computes with any number, so a damaged head
is refused before it gets there. What the keys mean to a family is the family's own affair.
ref: llama.cpp, tools/mtmd/clip.cpp (get_u32, get_i32, get_bool, get_f32, get_string, get_arr_*) and clip-impl.h (KEY_*)
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..errors import ModelError
from ..store.gguf_header import ArrayInfo, GgufHeader, type_name

CURE = "The file is damaged: download or convert it again"
_F32, _NO_WEIGHTS = 0, (24, 25, 26, 27, 28)  # enum ggml_type: I8 to I64 and F64 are no types of weights
_COPIED = ("newline", "class_embd", "separator")  # rows that become rows of the prompt themselves
_LAYER = re.compile(
    r"((?:[av]\.)?blk\.)(\d+)(\..+)"
)  # a tensor of a layer: what stands before its number and behind it
_TOWER_LAYERS = "v.blk."
_SCALES = re.compile(r"\.(l[ns]\d|\w*norm|\w*_ln)\.(weight|bias)")  # one value for each that they are multiplied with
_PROJECTION = re.compile(r"mm\.\d+\.weight")
_MOST = (1 << 31) - 1  # llama.cpp keeps every number in an int
_SIDE = 1 << 14  # pixels of a square's side; the largest known are 1540
_PIXELS = 1 << 24  # a picture is scaled up to at least; the largest known are 65,536
WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool")
MANY = tuple(f"array of {kind}" for kind in WHOLE)
_FILTERS = 5  # PIL's numbers of filters are 0 to 5
_SIZE_OF_BLOCKS = "v.blk.0.ln1.weight"
_SIZE_OF_PATCHES = "v.patch_embd.weight"
_BIAS_OF_PATCHES = "v.patch_embd.bias"
_QKV = tuple(f"attn_{part}" for part in ("q", "k", "v"))
_MATRICES = (*_QKV, "attn_qkv", "attn_out", "ffn_up", "ffn_down", "ffn_gate")
# projector -> parts of its layers that have a bias together, or none of them. CLIP and SigLIP, behind _ALL_BIASED, have
# them all; InternViT-6B has none in its queries, keys and values
_TOGETHER = {
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"), (_MATRICES, ("ln1", "ln2"))),
    "internvl": (_QKV, ("attn_out", "ffn_up", "ffn_down"), ("ln1", "ln2")),
}
_ALL_BIASED = ("mlp", "llava_onevision", "idefics3", "gemma3")
_NO_BIAS_OF_PATCHES = "v.pre_ln.weight"  # CLIP has this instead
_POSITIONS = "v.position_embd.weight"
_OF_ONE_SIZE = ("mlp", "llava_onevision", "idefics3", "internvl", "gemma3")  # a position for each patch of a square
# projector -> its first matrix, which takes a square of patches, and the key that says how many on a side
_SQUARES = {
    "idefics3": ("mm.model.fc.weight", "clip.vision.projector.scale_factor"),
    "internvl": ("mm.model.mlp.1.weight", "clip.vision.projector.scale_factor"),
    **dict.fromkeys(
        ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"), ("mm.0.weight", "clip.vision.spatial_merge_size")
    ),
}


@dataclass(frozen=True)
class Rule:
    """kinds: as the file may keep the value; least, most: of a number, of each where there are several.

    length: of an array, 0 for any. words: of a text, () for any. zero: 0 is allowed as well, for "none".
    """

    kinds: tuple[str, ...]
    least: float = 0
    most: float = _MOST
    length: int = 0
    words: tuple[str, ...] = ()
    zero: bool = False

    @property
    def allowed(self) -> str:
        """In words."""
        if self.words:
            return " or ".join(map(repr, self.words))
        if self.kinds[0].endswith(("text", "bool")):
            return self.kinds[0]
        name = "a whole number" if self.kinds == WHOLE else " or ".join(self.kinds)
        if len(self.kinds) > len(WHOLE):
            name = "a whole number, or one for each layer"
        elif self.kinds == MANY:
            name = "whole numbers"
        count = f"{self.length} of " if self.length else ""
        none = "0, or " if self.zero else ""
        return f"{name}, {none}{count}{self.least:g} to {self.most:g}"

    def fits(self, kind: str, value: Any) -> bool:
        if kind not in self.kinds:
            return False
        if kind.endswith("text"):
            return not self.words or value in self.words
        if isinstance(value, ArrayInfo):  # of so many numbers that they were not kept
            return False
        values = value if isinstance(value, tuple) else (value,)
        right = len(values) == self.length or not self.length
        return right and all(
            math.isfinite(v) and (self.least <= v <= self.most or (self.zero and v == 0)) for v in values
        )


def _number(least: int = 0, most: int = _MOST) -> Rule:
    """As llama.cpp reads numbers: of no other kind."""
    return Rule(("uint32",), least, most)


def _ours(least: int = 0, most: int = _MOST) -> Rule:
    """A number that only this package reads."""
    return Rule(WHOLE, least, most)


TEXT, BOOL, _FLAG = Rule(("text",)), Rule(("bool",)), Rule(WHOLE, 0, 1)
_NUMBERS = Rule(("array of int32",), -1, _MOST)
_TOWERS = ("vision", "audio", "gen.audio")
_OF_A_TOWER = {
    "projector_type": TEXT,
    "embedding_length": _number(1, 1 << 20),
    "feed_forward_length": _number(0, 1 << 24),
    "block_count": _number(0, 1000),
    "projection_dim": _number(),
    "attention.head_count": _number(0, 1 << 16),
    "attention.head_count_kv": _number(0, 1 << 16),
    "attention.head_dim": _number(0, 1 << 16),
    "attention.layer_norm_epsilon": Rule(("float32",), 0, 0.1),
    "feature_layer": _NUMBERS,
}
_OF_VISION = {
    "image_size": _number(0, _SIDE),
    "patch_size": _number(1, _SIDE),
    "preproc_image_size": _number(1, _SIDE),
    "image_min_pixels": _number(0, _PIXELS),
    "image_max_pixels": _number(1),
    "preproc_min_tiles": _number(0, 256),
    "preproc_max_tiles": _number(1, 256),
    "projector.scale_factor": _number(1, 64),
    "projector.query_side": _number(1, _SIDE),
    "projector.window_side": _number(1, _SIDE),
    "projector.spatial_offsets": _NUMBERS,
    "spatial_merge_size": _number(1, 64),
    "n_wa_pattern": _number(0, 1000),
    "wa_layer_indexes": _NUMBERS,
    "wa_pattern_mode": _NUMBERS,
    "window_size": _number(0, _SIDE),
    "swiglu_clamp": Rule(("float32",), -math.inf, math.inf),
    "mm_patch_merge_type": Rule(("text",), words=("flat", "spatial", "spatial_unpad")),
    "image_grid_pinpoints": Rule(("array of int32",), 1, _SIDE),
    "image_mean": Rule(("array of float32",), -1000, 1000, 3),
    "image_std": Rule(("array of float32",), 1e-6, 1000, 3),
    "sam.head_count": _number(1, 1 << 16),
    "sam.block_count": _number(1, 1000),
    "sam.embedding_length": _number(1, 1 << 20),
    "expert_used_count": _number(0, 1 << 16),
}
_OF_AUDIO = (
    *("num_mel_bins", "projector.stack_factor", "chunk_size", "conv_kernel_size", "max_pos_emb", "subsampling_factor"),
    *("projector.window_size", "projector.downsample_rate", "projector.head_count", "rvq.num_quantizers"),
    *("window_size", "local_block_count", "local_group_size"),
)
_OURS = {
    "aim.family": Rule(("text",), words=("llava_next", "llava_video")),
    **dict.fromkeys(("aim.origin", "aim.preprocess", "aim.image_token", "aim.video_token"), TEXT),
    **dict.fromkeys(("aim.video.pool", "aim.video.newline"), TEXT),
    **dict.fromkeys(("aim.vision.both_ways", "aim.vision.crop_to_patches", "aim.video.times"), _FLAG),
    **dict.fromkeys((f"aim.vision.do_{what}" for what in ("center_crop", "image_splitting", "pad")), _FLAG),
    **dict.fromkeys(("aim.vision.resample", "aim.video.resample"), _ours(0, _FILTERS)),
    **dict.fromkeys(("aim.vision.min_pixels", "aim.video.min_pixels"), _ours(0, _PIXELS)),
    **dict.fromkeys(("aim.vision.max_pixels", "aim.video.max_pixels"), _ours(1)),
    **dict.fromkeys(("aim.vision.max_tokens", "aim.video.max_tokens"), _ours(1, 1 << 16)),
    "aim.vision.shortest_edge": _ours(0, _SIDE),
    "aim.video.longest_edge": _ours(1, _SIDE),
    "aim.vision.min_tiles": _ours(0, 256),
    "aim.vision.max_tiles": _ours(1, 256),
    "aim.vision.crop_size": _ours(),  # of the first converters; nothing reads it
    "aim.video.n_frames": _ours(1, 1 << 16),
    "aim.video.pool_stride": _ours(1, 1 << 10),
    "aim.video.ids_per_second": _ours(1, 1 << 16),
}
RULES = {
    **dict.fromkeys(("general.name", "general.description", "clip.projector_type"), TEXT),
    **dict.fromkeys((f"clip.has_{what}_encoder" for what in ("vision", "audio", "gen_audio")), BOOL),
    **dict.fromkeys(("clip.use_gelu", "clip.use_silu"), BOOL),
    "clip.minicpmv_version": Rule(("int32",)),
    "clip.minicpmv_query_num": _number(),
    **{f"clip.{tower}.{key}": rule for tower in _TOWERS for key, rule in _OF_A_TOWER.items()},
    **{f"clip.vision.{key}": rule for key, rule in _OF_VISION.items()},
    **{f"clip.audio.{key}": _number() for key in _OF_AUDIO},
    **dict.fromkeys(("clip.audio.wa_pattern_mode", "clip.audio.rvq.codebook_size"), _NUMBERS),
    "clip.gen.audio.model_variant": TEXT,
    **_OURS,
}


def check_head(header: GgufHeader) -> None:
    """Raises ModelError for a head that names what cannot be, or that its own tensors contradict."""
    check_rules(header, RULES)
    check_types(header)
    check_biases(header)
    _check_tower_biases(header)
    _check_tensors(header)
    _check_blocks(header)
    _check_squares(header)


def check_rules(header: GgufHeader, rules: Mapping[str, Rule]) -> None:
    """Raises ModelError for the first value that its key's rule does not allow."""
    for key, value in header.metadata.items():
        rule = rules.get(key)
        if rule is None and key.startswith("aim."):
            raise damaged(header, key, "this version knows no such key: update aim-local, or convert the model again")
        if rule is not None and not rule.fits(header.kinds[key], value):
            raise damaged(header, key, f"it has to be {rule.allowed}")


def check_types(header: GgufHeader) -> None:
    """Weights of types that the graphs compute with. Raises ModelError.

    What is added to rows or multiplied with them is float32 (ggml-cpu/binary-ops.cpp), as all converters write it.
    """
    for tensor in header.tensors:
        is_row = len(tensor.shape) == 1 and not any(word in tensor.name for word in _COPIED)
        wanted = "F32" if is_row else "a type of floating point" if tensor.type in _NO_WEIGHTS else ""
        if wanted and tensor.type != _F32 and "tid2eid" not in tensor.name:  # a table of whole numbers
            raise damaged_tensor(header, tensor.name, f"is of type {type_name(tensor.type)}; it has to be {wanted}")


def check_biases(header: GgufHeader) -> None:
    """A bias has one number for each that its weight makes, and all layers have it or none. Raises ModelError.

    Both loaders take most biases as they come: one that is missing, or short, changes answers without a word.
    """
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    places = defaultdict[tuple[str, str], set[int]](set)  # layers that have it, by what stands around their number
    for name, shape in shapes.items():
        weight = shapes.get(f"{name.removesuffix('.bias')}.weight", ()) if name.endswith(".bias") else ()
        has_rows = 1 <= len(weight) <= 2 or name == _BIAS_OF_PATCHES
        if weight and has_rows and prod(shape) != weight[-1]:
            raise damaged_tensor(header, name, f"has {prod(shape)} values, and its weight makes {weight[-1]}")
        layer = _LAYER.fullmatch(name)
        if layer:
            places[layer[1], layer[3]].add(int(layer[2]))
    for (begin, end), layers in places.items():
        weights = places.get((begin, f"{end.removesuffix('.bias')}.weight"), layers)
        if begin == _TOWER_LAYERS and _SCALES.fullmatch(end):
            weights = places.get((begin, ".attn_out.weight"), layers)
        if (end.endswith(".bias") or _SCALES.fullmatch(end)) and weights - layers:
            missing = min(weights - layers)
            raise damaged_tensor(header, f"{begin}{missing}{end}", "is missing, and other layers have it")


def check_together(header: GgufHeader, begin: str, parts: Sequence[str], *, needed: bool = False) -> None:
    """The parts of a layer that are there have a bias all, or none of them. Raises ModelError.

    begin: of the layers' names, "blk." or "v.blk.". needed: they have one all.
    """
    names = {tensor.name for tensor in header.tensors}
    layers = {(m[1], m[2]) for m in map(_LAYER.fullmatch, names) if m and m[1] == begin}
    for start, number in sorted(layers, key=lambda layer: int(layer[1])):
        weights = [f"{start}{number}.{part}" for part in parts if f"{start}{number}.{part}.weight" in names]
        missing = [name for name in weights if f"{name}.bias" not in names]
        if missing and (needed or len(missing) < len(weights)):
            why = "models of its kind have it" if needed else "parts like it have one"
            raise damaged_tensor(header, f"{missing[0]}.bias", f"is missing, and {why}")


def _check_tower_biases(header: GgufHeader) -> None:
    """Biases that the towers of known families have: clip.cpp goes on without those that it does not find."""
    projector = projector_of(header)
    for parts in _TOGETHER.get(projector, ()):
        check_together(header, _TOWER_LAYERS, parts)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for name, shape in shapes.items():
        layer = _LAYER.fullmatch(name)
        bias = f"{name.removesuffix('.weight')}.bias"
        if prod(shape) == 1 and _SCALES.fullmatch(layer[3] if layer else name.removeprefix("v")):
            raise damaged_tensor(header, name, "has 1 value; it has to be one for each that it is multiplied with")
        is_part = layer and f"{layer[1]}{layer[2]}.ln1.weight" in shapes
        if is_part and name.endswith(".bias") and f"{name[:-5]}.weight" not in shapes:
            raise damaged_tensor(header, name, f"is a bias of {name[:-5]}.weight, which is missing")
        if projector in _ALL_BIASED[:2] and _PROJECTION.fullmatch(name) and len(shape) == 2 and bias not in shapes:
            raise damaged_tensor(header, bias, "is missing, and models of its kind have it")
    if projector in _ALL_BIASED:
        check_together(header, _TOWER_LAYERS, (*_MATRICES, "ln1", "ln2"), needed=True)
        if _SIZE_OF_BLOCKS in shapes and not {_BIAS_OF_PATCHES, _NO_BIAS_OF_PATCHES} & set(shapes):
            raise damaged_tensor(header, _BIAS_OF_PATCHES, "is missing, and towers without v.pre_ln.weight have it")


def projector_of(header: GgufHeader) -> str:
    values = header.metadata
    return str(values.get("clip.projector_type") or values.get("clip.vision.projector_type", ""))


def damaged_tensor(header: GgufHeader, name: str, what: str) -> ModelError:
    return ModelError(f"{header.path}: the tensor {name!a} {what}. {CURE}")


def damaged(header: GgufHeader, key: str, needed: str) -> ModelError:
    """What to raise for the value of a key. needed: what is allowed, such as "it has to be text"."""
    shown = "missing"
    if key in header.metadata:
        value = header.metadata[key]
        shown = f"an array of {value.length}" if isinstance(value, ArrayInfo) else repr(value)
        shown = f"{shown if len(shown) <= 80 else f'{shown[:77]}...'} ({header.kinds[key]})"
    named = key if key.isprintable() else ascii(key)
    return ModelError(f"{header.path}: {named} is {shown}; {needed}. {CURE}")


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


def _check_tensors(header: GgufHeader) -> None:
    """Sizes that the weights have too."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    width, patch, pinpoints = (f"clip.vision.{k}" for k in ("embedding_length", "patch_size", "image_grid_pinpoints"))
    norm, kernel = shapes.get(_SIZE_OF_BLOCKS, ()), shapes.get(_SIZE_OF_PATCHES, ())
    if len(norm) == 1 and header.metadata.get(width, norm[0]) != norm[0]:
        raise damaged(header, width, f"the weights of the first layer ({_SIZE_OF_BLOCKS}) are {norm[0]} wide")
    square = len(kernel) == 4 and kernel[0] == kernel[1]
    if square and header.metadata.get(patch, kernel[0]) != kernel[0]:
        raise damaged(header, patch, f"the weights of a patch ({_SIZE_OF_PATCHES}) are {kernel[0]} pixels wide")
    if len(header.metadata.get(pinpoints, ())) % 2:
        raise damaged(header, pinpoints, "it has to be pairs of width and height")


def _check_squares(header: GgufHeader) -> None:
    """Numbers of patches, where the projector takes a fixed number of them. Behind `_check_tensors`."""
    values, shapes = header.metadata, {tensor.name: tensor.shape for tensor in header.tensors}
    projector = projector_of(header)
    size, patch = values.get("clip.vision.image_size"), values.get("clip.vision.patch_size")
    places = shapes.get(_POSITIONS, ())[1:2]
    if projector in _OF_ONE_SIZE and places and size is not None and patch:
        n = (size // patch) ** 2
        if places[0] not in (n, n + 1):  # CLIP's class token has a place of its own
            needed = f"its {patch}-pixel patches are {n}, and {_POSITIONS} has {places[0]} places"
            raise damaged(header, "clip.vision.image_size", needed)
    matrix, key = _SQUARES.get(projector, ("", ""))
    width = values.get("clip.vision.embedding_length")
    side = values.get(key, 2 if key.endswith("merge_size") else 0)  # without a word llama.cpp takes 2 in Qwen's
    if matrix in shapes and width and side**2 * width != shapes[matrix][0]:
        raise damaged(header, key, f"{matrix} takes {shapes[matrix][0]} values, and patches have {width} each")
