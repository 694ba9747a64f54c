"""From what was measured to what is said: medians with their spread, ratios paired by round, notes on what to doubt.

Pure: numbers in, plain values for JSON and rows for a table out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..measure import Spread, paired_ratio
from .grid import Grid
from .session import Measured

BUSY = 0.15  # spread of the runs that are compared with, as a share of their median, above which we say so
STAGES = (
    "decode_video", "preprocess", "vision", "merge", "prefill", "prefill_cpu", "importance", "first_token", "decode"
)  # fmt: skip
RATIOS = ("vision", "prefill", "prefill_cpu", "first_token", "decode")
LABELS = {
    "decode_video": "decode video",
    "prefill_cpu": "  processor time",
    "importance": "  importance in it",
    "first_token": "first token after",
    "decode": "decode, a token",
}
RATIO_LABELS = {"prefill_cpu": "prefill's processor time", "first_token": "first token"}


@dataclass(frozen=True)
class Cell:
    """One arm at one number of frames. ms, ratios: by stage; a ratio says how many times less time than the
    reference's, "decode at one length" with as many cells in use. counts: of the prompt."""

    n_frames: int
    arm: str
    counts: dict[str, int]
    ms: dict[str, Spread]
    ratios: dict[str, Spread]
    prefill_tps: Spread
    gflops: Spread
    flops: float
    kv_bytes: int
    peak_rss: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cells(grid: Grid) -> list[Cell]:
    """Every arm and number of frames that was measured."""
    found = []
    for n_frames in grid.frames:
        reference = grid.of(n_frames, grid.reference)
        for arm in grid.arms:
            runs = grid.of(n_frames, arm)
            if runs:
                found.append(_cell(n_frames, arm, runs, reference if arm != grid.reference else []))
    return found


def _cell(n_frames: int, arm: str, runs: list[Measured], reference: list[Measured]) -> Cell:
    first = runs[0]
    peaks = [run.peak_rss for run in runs if run.peak_rss is not None]
    return Cell(
        n_frames,
        arm,
        {name: getattr(first, name) for name in ("n_text", "n_visual", "n_visual_full", "n_prompt")},
        {stage: Spread.of([run.ms[stage] for run in runs]) for stage in STAGES if stage in first.ms},
        ratios(reference, runs) if len(reference) == len(runs) else {},
        Spread.of([run.prefill_tps for run in runs]),
        Spread.of([run.gflops for run in runs]),
        first.flops,
        first.kv_bytes,
        max(peaks) if peaks else None,
    )


def ratios(reference: Sequence[Measured], runs: Sequence[Measured]) -> dict[str, Spread]:
    """reference / run by round, of what both measured."""
    found: dict[str, Spread] = {}
    for stage in RATIOS:
        if stage in reference[0].ms and stage in runs[0].ms:
            found[stage] = paired_ratio([r.ms[stage] for r in reference], [r.ms[stage] for r in runs])
    same = f"decode at {runs[0].n_prompt}"
    if same in reference[0].ms:
        found["decode at one length"] = paired_ratio([r.ms[same] for r in reference], [r.ms["decode"] for r in runs])
    return found


# --- notes -----------------------------------------------------------------------------------------------------------


def notes(grid: Grid, found: Sequence[Cell]) -> list[str]:
    """What a reader has to know before believing the figures."""
    told = [f"{n} frames, {arm}: not measured: {why}" for (n, arm), why in grid.failures.items()]
    for cell in found:
        if cell.arm == grid.reference:
            width = cell.ms["prefill"].width
            if width > BUSY:
                told.append(
                    f"the machine was busy: at {cell.n_frames} frames the prefill of {cell.arm} spread by {width:.0%} "
                    "of its median; trust the ratios more than the times, most of all those of "
                    "processor time with n_threads=1, or measure again"
                )
    return told


def what_limits(cell: Cell) -> str:
    """Which stage takes most of the time to the first token, and its share; "" where that was not measured."""
    if "first_token" not in cell.ms:
        return ""
    whole = cell.ms["first_token"].median
    parts = {s: cell.ms[s].median for s in ("decode_video", "preprocess", "vision", "merge", "prefill") if s in cell.ms}
    most = max(parts, key=lambda stage: parts[stage])
    return f"{LABELS.get(most, most)} {parts[most] / whole:.0%}"


# --- table -----------------------------------------------------------------------------------------------------------


def table(found: Sequence[Cell], reference: str) -> list[list[str]]:
    """Rows of text for the cells of one number of frames: a column per arm."""
    rows = [[f"{found[0].n_frames} frames, ms", *(cell.arm for cell in found)]]
    rows.append(["visual tokens", *(str(cell.counts["n_visual"]) for cell in found)])
    for stage in STAGES:
        if any(_is_there(cell, stage) for cell in found):
            rows.append(
                [LABELS.get(stage, stage), *(_ms(cell.ms[stage]) if _is_there(cell, stage) else "-" for cell in found)]
            )
    if any(what_limits(cell) for cell in found):
        rows.append(["most of the first token", *(what_limits(cell) or "-" for cell in found)])
    rows.append(["prefill tokens/s", *(f"{cell.prefill_tps.median:.0f}" for cell in found)])
    rows.append(["prefill GFLOP/s", *(f"{cell.gflops.median:.0f}" for cell in found)])
    for stage in (*RATIOS, "decode at one length"):
        if any(stage in cell.ratios for cell in found):
            label = RATIO_LABELS.get(stage, stage)
            rows.append([f"{label}: {reference} / this", *(_ratio(cell.ratios.get(stage)) for cell in found)])
    rows.append(["KV cache, MiB", *(f"{cell.kv_bytes / 2**20:.1f}" for cell in found)])
    if any(cell.peak_rss for cell in found):
        rows.append(["peak memory, MiB", *(f"{(cell.peak_rss or 0) / 2**20:.0f}" for cell in found)])
    return rows


def _is_there(cell: Cell, stage: str) -> bool:
    """Whether a stage took any time."""
    return stage in cell.ms and cell.ms[stage].high >= 0.005


def _ms(value: Spread) -> str:
    return f"{_number(value.median)} ({_number(value.low)}..{_number(value.high)})"


def _ratio(value: Spread | None) -> str:
    return "" if value is None else f"{value.median:.2f} ({value.low:.2f}..{value.high:.2f})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
