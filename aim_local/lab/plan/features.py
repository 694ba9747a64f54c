"""What the time of each stage depends on: amounts of work, as the calibration's rates count them.

The stages are those of Stats, in order; "prefill" is without the ranking, "other" is all between the stages (context,
template, copies), "decode" is one later token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...engine.model import Model
from ...media.outline import Outline
from ...reduction.planner import kv_bytes
from .memory import mmproj_header, tensor_bytes
from .sizes import Sizes, tower_facts

STAGES = ("decode_video", "preprocess", "vision", "merge", "prefill", "importance", "other", "decode")


def features(model: Model, sizes: Sizes, cache_bytes: int, outlines: Sequence[Outline]) -> dict[str, dict[str, float]]:
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
            "flops": sizes.flops["importance"],
            "gathered": float(sum(drops)) * shape.n_embd,
        },
        "other": {"runs": 1.0, "kv_bytes": float(cache_bytes), "tiles": float(sizes.n_tiles)},
        "decode": {"weight_bytes": float(tensor_bytes(model.text.header)), "kv_bytes": float(cells)},
    }


# --- what a calibration is of ----------------------------------------------------------------------------------------


def model_shape(model: Model) -> dict[str, Any]:
    """What makes two models equally fast: sizes and weight types of both towers. Plain values for JSON."""
    facts, mmproj = tower_facts(model), mmproj_header(model)
    files = [model.text.header] + ([mmproj] if mmproj else [])
    return {
        "architecture": model.text.architecture,
        "text": asdict(model.text.shape),
        "text_types": model.text.header.types(),
        "projector": model.tower.projector if model.tower else None,
        "vision": asdict(facts.vision) if facts else None,
        "vision_types": mmproj.types() if mmproj else None,
        "n_params": sum(header.n_params for header in files),
    }


def conditions(model: Model) -> dict[str, Any]:
    """What a run is made with and its speed depends on. Plain values for JSON."""
    config, facts = model.config, tower_facts(model)
    return {
        "threads": model.text.n_threads,
        "vision_threads": facts.n_threads if facts else None,
        "n_ubatch": config.n_ubatch,
        "n_gpu_layers": config.n_gpu_layers,
        "flash_attn": config.flash_attn,
        "type_k": config.type_k,
        "type_v": config.type_v,
        **({"rpc": list(config.rpc)} if config.rpc else {}),
    }


def this_machine() -> dict[str, Any]:
    from ...native.library import PATCH_VERSION
    from ..measure import machine

    return {**machine(), "patch": PATCH_VERSION}
