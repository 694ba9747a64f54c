"""From a planned prompt to its first logits: encode, append, and what that counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..media import Image, Video
from ..reduction.planner import prefill_flops
from ..results import Stats, Trace
from .contexts import Context
from .encode import encode_media
from .generate import Generated
from .model import Model
from .plan import Plan
from .read import Reading
from .tile_rows import ItemRows, TileCounts
from .watch import Watch


@dataclass(frozen=True, eq=False)
class Filled:
    """A context that holds a prompt. positions: see Appended. ms: by stage."""

    positions: list[int]
    trace: Trace
    stats: Stats


def prefill(
    model: Model,
    plan: Plan,
    media: Mapping[int, Video | Image],
    context: Context,
    watch: Watch,
    reading: Reading,
    rows: Mapping[int, ItemRows] | None = None,
) -> Filled:
    """Encodes the plan's media and appends all its pieces; logits of the last token can be read afterwards.

    media: by their number in the conversation, those of the plan at least. reading: those of them that were read for
    this prompt, for the stats. rows: of media, as far as they are encoded, by the same numbers.
    """
    encoded = encode_media(model, plan, media, watch, rows)
    start = time.perf_counter()
    done = context.append(plan.pieces, encoded.blocks, plan.tokens, watch)
    ms = {
        **reading.ms,
        "prefill": (time.perf_counter() - start) * 1000,
        "importance": done.importance_ms,
    }
    for stage, spent in encoded.ms.items():
        ms[stage] = ms.get(stage, 0.0) + spent
    trace = Trace(done.kept, done.importance, list(encoded.groups), list(encoded.grids))
    return Filled(
        done.positions,
        trace,
        replace(_stats(model, plan, reading, context, ms, encoded.tiles), ahead_ms=encoded.ahead_ms),
    )


def _stats(
    model: Model, plan: Plan, reading: Reading, context: Context, ms: Mapping[str, float], tiles: TileCounts
) -> Stats:
    shape = model.text.shape
    return Stats(
        n_frames=reading.n_frames,
        n_images=reading.n_images,
        n_text=plan.n_text,
        n_visual_full=plan.n_visual_full,
        n_visual=plan.n_visual,
        n_prompt=plan.n,
        n_ctx=context.n_ctx,
        n_tiles_encoded=tiles.encoded,
        n_tiles_equal=tiles.equal,
        n_tiles_near=tiles.near,
        n_tiles_cached=tiles.cached,
        n_tiles_ahead=tiles.ahead,
        kv_bytes=context.kv_bytes(),
        flops=prefill_flops(shape, plan.n_text, plan.counts),
        flops_full=prefill_flops(shape, plan.n_text, [plan.n_visual_full] * shape.n_layer),
        decode_video_ms=ms.get("decode_video", 0.0),
        preprocess_ms=ms.get("preprocess", 0.0),
        vision_ms=ms.get("vision", 0.0),
        merge_ms=ms.get("merge", 0.0),
        prefill_ms=ms["prefill"],
        importance_ms=ms["importance"],
    )


def answered(stats: Stats, generated: Generated, start: float) -> Stats:
    """The stats of a prefill with those of its answer. start: time.perf_counter() of the call."""
    return replace(
        stats,
        ttft_ms=(generated.first - start) * 1000 if generated.first else 0.0,
        n_generated=len(generated.tokens),
        decode_ms=generated.decode_ms,
        stop_reason=generated.stop_reason,
    )
