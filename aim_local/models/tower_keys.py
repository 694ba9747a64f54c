"""Keys in the head of a mmproj that its projector has no use for: nothing reads them, so what they ask for is not done.

ref: llama.cpp, tools/mtmd/clip.cpp (clip_model_loader::load_hparams, the switch over projectors); conversion/ for what
its converter writes
"""

from __future__ import annotations

from ..store.gguf_header import GgufHeader
from .head import damaged, projector_of
from .tower_tensors import KNOWN_PROJECTORS

_QWEN = ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger")
_TILES = ("mlp", "llava_onevision")
# key -> which of the known projectors it is for; of a tower that sees
_FOR = {
    "feature_layer": ("mlp",),
    "image_grid_pinpoints": _TILES,
    "mm_patch_merge_type": _TILES,
    "preproc_image_size": ("idefics3",),
    "preproc_min_tiles": ("internvl",),
    "preproc_max_tiles": ("internvl",),
    "projector.scale_factor": ("idefics3", "internvl", "gemma3", "gemma4v", "gemma4uv"),
    "projector.query_side": (),
    "projector.window_side": (),
    "projector.spatial_offsets": (),
    "spatial_merge_size": _QWEN,
    "n_wa_pattern": _QWEN,
    "wa_layer_indexes": (),
    "wa_pattern_mode": (),
    "window_size": (),
    "swiglu_clamp": (),
    "is_deepstack_layers": ("qwen3vl_merger",),
    "image_min_pixels": (),
    "image_max_pixels": (),
    **dict.fromkeys(("sam.head_count", "sam.block_count", "sam.embedding_length", "expert_used_count"), ()),
}
_PREPROCESS = "aim.preprocess"
_PICTURES = {"onevision": "llava_onevision", "anyres": "mlp", "clip-center-crop": "mlp"}  # and whose they are


def check_tower_keys(header: GgufHeader) -> None:
    """Raises ModelError for a key of other projectors than the file's own, where that one is known."""
    projector = projector_of(header)
    if projector not in KNOWN_PROJECTORS:
        return
    for name, projectors in _FOR.items():
        key = f"clip.vision.{name}"
        if key in header.metadata and projector not in projectors:
            raise damaged(header, key, f"towers with the projector {projector!r} have no such value")
    kind = header.metadata.get(_PREPROCESS)
    own = [word for word, its in _PICTURES.items() if its == projector]
    if kind is not None and own and kind not in own:
        allowed = " or ".join(map(repr, own))
        raise damaged(header, _PREPROCESS, f"with the projector {projector!r} it has to be {allowed}")
