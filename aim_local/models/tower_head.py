"""What may stand in the head of a mmproj: of which kind a value is, between which limits, and which biases it needs.

What the keys mean to a family is the family's own affair; sizes that the tensors have too: tower_sizes.py; keys that
only other projectors have: tower_keys.py.
ref: llama.cpp, tools/mtmd/clip.cpp (get_u32, get_i32, get_bool, get_f32, get_string, get_arr_*) and clip-impl.h (KEY_*)
"""

from __future__ import annotations

import math
import re
from math import prod

from ..store.gguf_header import GgufHeader
from .head import (
    BIAS_OF_PATCHES,
    BOOL,
    LAYER,
    SCALES,
    TEXT,
    TOWER_LAYERS,
    WHOLE,
    Rule,
    check_biases,
    check_rules,
    check_together,
    check_types,
    damaged_tensor,
    projector_of,
)
from .tower_keys import check_tower_keys
from .tower_sizes import FIRST_NORM, check_tower_sizes
from .tower_tensors import PRE_NORM

_MOST = (1 << 31) - 1  # llama.cpp keeps every number in an int
_SIDE = 1 << 14  # pixels of a square's side; the largest known are 1540
_PIXELS = 1 << 24  # a picture is scaled up to at least; the largest known are 65,536
_FILTERS = 5  # PIL's numbers of filters are 0 to 5
_PROJECTION = re.compile(r"mm\.\d+\.weight")
_QKV = tuple(f"attn_{part}" for part in ("q", "k", "v"))
_MATRICES = (*_QKV, "attn_qkv", "attn_out", "ffn_up", "ffn_down", "ffn_gate")
# projector -> parts of its layers that have a bias together, or none of them. CLIP and SigLIP, behind _ALL_BIASED, have
# them all; InternViT-6B has none in its queries, keys and values
_TOGETHER = {
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"), (_MATRICES, ("ln1", "ln2"))),
    "internvl": (_QKV, ("attn_out", "ffn_up", "ffn_down"), ("ln1", "ln2")),
}
_ALL_BIASED = ("mlp", "llava_onevision", "idefics3", "gemma3")  # PRE_NORM instead of a bias of patches in CLIP


def _number(least: int = 0, most: int = _MOST) -> Rule:
    """As llama.cpp reads numbers: of no other kind."""
    return Rule(("uint32",), least, most)


def _ours(least: int = 0, most: int = _MOST) -> Rule:
    """A number that only this package reads."""
    return Rule(WHOLE, least, most)


_FLAG = Rule(WHOLE, 0, 1)
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


def check_tower_head(header: GgufHeader) -> None:
    """Raises ModelError for a head that names what cannot be, or that its own tensors contradict."""
    check_rules(header, RULES)
    check_types(header)
    check_biases(header)
    _check_tower_biases(header)
    check_tower_sizes(header)
    check_tower_keys(header)


def _check_tower_biases(header: GgufHeader) -> None:
    """Biases that the towers of known families have: clip.cpp goes on without those that it does not find."""
    projector = projector_of(header)
    for parts in _TOGETHER.get(projector, ()):
        check_together(header, TOWER_LAYERS, parts)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    for name, shape in shapes.items():
        layer = LAYER.fullmatch(name)
        bias = f"{name.removesuffix('.weight')}.bias"
        if prod(shape) == 1 and SCALES.fullmatch(layer[3] if layer else name.removeprefix("v")):
            raise damaged_tensor(header, name, "has 1 value; it has to be one for each that it is multiplied with")
        is_part = layer and f"{layer[1]}{layer[2]}.ln1.weight" in shapes
        if is_part and name.endswith(".bias") and f"{name[:-5]}.weight" not in shapes:
            raise damaged_tensor(header, name, f"is a bias of {name[:-5]}.weight, which is missing")
        if projector in _ALL_BIASED[:2] and _PROJECTION.fullmatch(name) and len(shape) == 2 and bias not in shapes:
            raise damaged_tensor(header, bias, "is missing, and models of its kind have it")
    if projector in _ALL_BIASED:
        check_together(header, TOWER_LAYERS, (*_MATRICES, "ln1", "ln2"), needed=True)
        if FIRST_NORM in shapes and not {BIAS_OF_PATCHES, PRE_NORM} & set(shapes):
            raise damaged_tensor(header, BIAS_OF_PATCHES, "is missing, and towers without v.pre_ln.weight have it")
