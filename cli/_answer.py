"""What is printed about a finished answer: warnings and numbers on stderr, or one JSON object on stdout.

Knows the shape of an Answer and of Stats; asks nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _log, _out
from ._option_names import in_options

if TYPE_CHECKING:
    from aim_local import Answer, Stats

STAGE_NAMES = {"decode_video": "video", "preprocess": "pixels", "importance": "scoring"}
_ENDS = {"length": "cut at --max-tokens", "cancelled": "cancelled"}  # other ends are told apart from the numbers


def stats_line(stats: Stats) -> str:
    """One compact line: what was read, visual tokens before and after, stages in ms, kernels, rates, KV cache."""
    from aim_local.results import STAGES

    seen = [_counted(n, what) for n, what in ((stats.n_frames, "frame"), (stats.n_images, "image")) if n]
    times = {stage: float(getattr(stats, f"{stage}_ms")) for stage in STAGES}
    stages = ", ".join(f"{STAGE_NAMES.get(stage, stage)} {ms:.0f}" for stage, ms in times.items() if ms >= 0.5)
    parts = [
        ", ".join(seen),
        tiles_part(stats),
        f"visual tokens {stats.n_visual_full} -> {stats.n_visual}" if stats.n_visual_full else "",
        f"{stats.n_ranked_again} ranked again" if stats.n_ranked_again else "",
        f"ms: {stages}" if stages else "",
        f"vision {stats.vision_kernels}" if stats.vision_kernels else "",
        f"prefill {stats.prefill_kernels}" if stats.prefill_kernels else "",
        f"TTFT {stats.ttft_ms:.0f} ms" if stats.ttft_ms else "",
        _counted(stats.n_generated, "token") + (f" at {stats.decode_tps:.1f}/s" if stats.decode_tps else ""),
        f"FLOPs {stats.flops_share:.1%} of full" if stats.flops_share < 1 else "",
        _memory(stats),
        _ENDS.get(stats.stop_reason, ""),
    ]
    return "stats: " + " | ".join(part for part in parts if part)


def tiles_part(stats: Stats) -> str:
    """ "3 of 32 tiles encoded, 29 equal": said only where some were not encoded, or not for the question."""
    reused = {"equal": stats.n_tiles_equal, "nearly equal": stats.n_tiles_near, "from the cache": stats.n_tiles_cached}
    total = stats.n_tiles_encoded + sum(reused.values())
    said = [f"{n} {how}" for how, n in reused.items() if n]
    if stats.n_tiles_ahead:
        said.append(f"{stats.n_tiles_ahead} before the question in {stats.ahead_ms:.0f} ms")
    return f"{stats.n_tiles_encoded} of {_counted(total, 'tile')} encoded, {', '.join(said)}" if said else ""


def _memory(stats: Stats) -> str:
    rows = f" + {stats.held_bytes / 2**20:.1f} MiB of rows" if stats.held_bytes else ""
    return f"KV cache {stats.kv_bytes / 2**20:.1f} MiB{rows}" if stats.kv_bytes else ""


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def print_notes(answer: Answer, stats: bool, quiet: bool) -> None:
    """What follows an answer on stderr."""
    if not quiet:
        if not answer.text.strip() and answer.stats.stop_reason != "cancelled":
            _log.say("(no answer)")
        _log.warn(answer.warnings)
        if answer.stats.stop_reason == "length" and not stats:
            _log.say("note: the answer was cut at the longest length; --max-tokens allows more")
    if stats:
        _log.say(stats_line(answer.stats))


def print_answer_json(
    answer: Answer, question: str, model: dict[str, Any], media: list[Path], ttft: dict[str, Any] | None = None
) -> None:
    """ttft: what was chosen for --ttft, predicted and measured."""
    found = {
        "text": answer.text,
        "question": question,
        "model": model,
        "media": [str(path) for path in media],
        "warnings": [in_options(line) for line in answer.warnings],
        "toy": answer.toy,
        "stats": answer.stats.to_dict(),
    }
    _out.json(found | ({"ttft": ttft} if ttft else {}))
