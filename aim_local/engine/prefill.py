"""From a planned prompt to its first logits: encode, append, and what that counted.

In a conversation the prompt is its new part; visual tokens of the part before may be ranked again with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..media import Image, Video
from ..models.pieces import MediaPiece, Piece, TokenGrid, TokenGroup
from ..reduction.planner import prefill_flops, ranked_again_flops
from ..results import Stats, Trace
from .contexts import Context
from .encode import Encoded, encode_media
from .generate import Generated
from .model import Model
from .plan import Plan
from .read import Reading
from .tile_rows import ItemRows
from .watch import Watch


@dataclass(frozen=True, eq=False)
class Filled:
    """A context that holds a prompt. positions: see Appended. ms: by stage."""

    positions: list[int]
    trace: Trace
    stats: Stats


@dataclass(frozen=True, eq=False)
class Earlier:
    """What a context holds of a conversation, all of it, where its visual tokens are ranked again; empty elsewhere.

    groups, grids: where those tokens come from, as in Trace.
    """

    pieces: tuple[Piece, ...] = ()
    groups: tuple[TokenGroup, ...] = ()
    grids: tuple[TokenGrid, ...] = ()


NOTHING_EARLIER = Earlier()


def earlier_of(plan: Plan, groups: tuple[TokenGroup, ...], grids: tuple[TokenGrid, ...]) -> Earlier:
    """The part of a conversation that is there. groups, grids: of that part or more of it, () where unknown.

    What is unknown, after a restart, gets groups that tell the item alone.
    """
    n = plan.n_visual
    if len(groups) < n:
        groups = tuple(
            TokenGroup(p.media, -1, -1) for p in plan.pieces if isinstance(p, MediaPiece) for _ in range(p.n)
        )
        grids = ()
    return Earlier(plan.pieces, groups[:n], tuple(grid for grid in grids if grid.owners.max(initial=-1) < n))


def prefill(
    model: Model,
    plan: Plan,
    media: Mapping[int, Video | Image],
    context: Context,
    watch: Watch,
    reading: Reading,
    rows: Mapping[int, ItemRows] | None = None,
    earlier: Earlier = NOTHING_EARLIER,
) -> Filled:
    """Encodes the plan's media and appends all its pieces; logits of the last token can be read afterwards.

    media: by their number in the conversation, those of the plan at least. reading: those of them that were read for
    this prompt, for the stats. rows: of media, as far as they are encoded, by the same numbers. earlier: what is ranked
    again with the plan's visual tokens; the trace then has both.
    """
    encoded = encode_media(model, plan, media, watch, rows)
    start = time.perf_counter()
    done = context.append(plan.pieces, encoded.blocks, plan.tokens, watch, earlier.pieces, plan.n_query)
    ms = {
        **reading.ms,
        "prefill": (time.perf_counter() - start) * 1000,
        "importance": done.importance_ms,
    }
    for stage, spent in encoded.ms.items():
        ms[stage] = ms.get(stage, 0.0) + spent
    n = np.int32(len(earlier.groups))
    grids = [*earlier.grids, *(replace(grid, owners=grid.owners + n) for grid in encoded.grids)]
    trace = Trace(done.kept, done.importance, [*earlier.groups, *encoded.groups], grids)
    return Filled(done.positions, trace, _stats(model, plan, reading, context, ms, encoded, earlier))


def _stats(
    model: Model,
    plan: Plan,
    reading: Reading,
    context: Context,
    ms: Mapping[str, float],
    encoded: Encoded,
    earlier: Earlier,
) -> Stats:
    tiles = encoded.tiles
    flops, flops_full = _flops(model, plan, earlier)
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
        ahead_ms=encoded.ahead_ms,
        n_ranked_again=len(earlier.groups),
        kv_bytes=context.kv_bytes(),
        held_bytes=context.held_bytes(),
        flops=flops,
        flops_full=flops_full,
        decode_video_ms=ms.get("decode_video", 0.0),
        preprocess_ms=ms.get("preprocess", 0.0),
        vision_ms=ms.get("vision", 0.0),
        merge_ms=ms.get("merge", 0.0),
        prefill_ms=ms["prefill"],
        importance_ms=ms["importance"],
        vision_kernels=model.vision_kernels if ms.get("vision") else "",
        prefill_kernels=model.prefill_kernels,
    )


def _flops(model: Model, plan: Plan, earlier: Earlier) -> tuple[float, float]:
    """Of this prefill, and of all that its layers saw without merging and pruning."""
    shape, whole = model.text.shape, replace(plan, pieces=(*earlier.pieces, *plan.pieces))
    full = prefill_flops(shape, whole.n_text, [whole.n_visual_full] * shape.n_layer)
    if earlier.pieces:
        return ranked_again_flops(shape, plan.n, whole.n_text, plan.shares, whole.n_visual), full
    return prefill_flops(shape, plan.n_text, plan.counts), full


def answered(stats: Stats, generated: Generated, start: float) -> Stats:
    """The stats of a prefill with those of its answer. start: time.perf_counter() of the call."""
    return replace(
        stats,
        ttft_ms=(generated.first - start) * 1000 if generated.first else 0.0,
        n_generated=len(generated.tokens),
        decode_ms=generated.decode_ms,
        stop_reason=generated.stop_reason,
    )
