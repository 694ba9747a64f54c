"""What the time of each stage depends on: amounts of work, as the calibration's rates count them.

The stages are those of Stats, in order; "prefill" is without the ranking, "other" is all between the stages (context,
template, copies), "decode" is one later token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...media.outline import Outline
from ...native.llama import thread_count
from ...reduction.planner import kv_bytes
from .memory import SCORES_MAX_BYTES, score_bytes, tensor_bytes
from .sizes import Sizes

if TYPE_CHECKING:
    from ...llm import VisionLLM
    from .head import ModelHead

STAGES = ("decode_video", "preprocess", "vision", "merge", "prefill", "importance", "other", "decode")
_STEPS = 5  # products of the ranking; beyond SCORES_MAX_BYTES each computes the scores again


def features(
    model: ModelHead | VisionLLM, sizes: Sizes, cache_bytes: int, outlines: Sequence[Outline]
) -> dict[str, dict[str, float]]:
    """Amounts by stage. cache_bytes: of the KV cache, which is cleared when it is made."""
    shape, config = model.text.shape, model.config
    pixels = float(sum(o.n_pictures * o.height * o.width for o in outlines))
    drops = [n for n, after in zip(sizes.rows, sizes.rows[1:], strict=False) if after < n]
    cells = kv_bytes(shape, sum(sizes.rows), config.type_k, config.type_v)
    return {
        "decode_video": {
            "files": float(sum(o.n_file_bytes > 0 for o in outlines)),
            "packets": float(sum(o.n_packets for o in outlines)),
            "decoded_px": float(sum(o.n_decoded * o.height * o.width for o in outlines)),
            "kept_px": pixels,
        },
        "preprocess": {"tiles": float(sizes.n_tiles), "source_px": pixels},
        "vision": {"flops": sizes.flops["vision"]},
        "merge": {"tiles": float(sizes.n_tiles), "flops": sizes.flops["merge"]},
        "prefill": {
            "passes": float(sizes.n_passes),
            "row_flops": sizes.flops["rows"],
            "pair_flops": sizes.flops["pairs"],
        },
        "importance": {
            "scored": float(len(sizes.scored)),
            "flops": _scoring(sizes),
            "gathered": float(sum(drops)) * shape.n_embd,
        },
        "other": {"runs": 1.0, "kv_bytes": float(cache_bytes), "tiles": float(sizes.n_tiles)},
        "decode": {"weight_bytes": float(tensor_bytes(model.text.header)), "kv_bytes": float(cells)},
    }


def _scoring(sizes: Sizes) -> float:
    """FLOPs of the ranking; only the last row's scores for "last_query", all of them again where they do not fit."""
    if sizes.tokens.importance == "last_query" or not sizes.scored:
        return 0.0
    most = max(sizes.rows[il] for il in sizes.scored)
    again = _STEPS if score_bytes(most) == SCORES_MAX_BYTES else 1
    return sizes.flops["importance"] * again


# --- what a calibration is of ----------------------------------------------------------------------------------------


def model_shape(model: ModelHead | VisionLLM) -> dict[str, Any]:
    """What makes two models equally fast: sizes and weight types of both towers. Plain values for JSON."""
    from dataclasses import asdict

    vision = model.vision
    towers = [model.text.header] + ([vision.header] if vision else [])
    return {
        "architecture": model.text.architecture,
        "text": asdict(model.text.shape),
        "text_types": model.text.header.types(),
        "projector": vision.projector if vision else None,
        "vision": asdict(vision.shape) if vision and not vision.is_foreign else None,
        "vision_types": vision.header.types() if vision else None,
        "n_params": sum(tower.n_params for tower in towers),
    }


def conditions(model: ModelHead | VisionLLM) -> dict[str, Any]:
    """What a run is made with and its speed depends on. Plain values for JSON."""
    config, vision = model.config, model.vision
    width = int(vision.metadata.get("clip.vision.embedding_length", 0)) if vision else 0
    return {
        "threads": thread_count(config.n_threads, model.text.n_embd),
        "vision_threads": thread_count(config.n_threads, width) if vision else None,
        "n_ubatch": config.n_ubatch,
        "n_gpu_layers": config.n_gpu_layers,
        "flash_attn": config.flash_attn,
        "type_k": config.type_k,
        "type_v": config.type_v,
    }


def this_machine() -> dict[str, Any]:
    from ...native.library import PATCH_VERSION
    from ..measure import machine

    return {**machine(), "patch": PATCH_VERSION}
