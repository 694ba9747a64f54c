"""From a cell's lines to its row of the report. Pure: reads no file and starts nothing.

The statistics are in metrics.py; docs/compare.md says what each figure means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...results import STAGES
from ..measure import Spread
from .metrics import divergence, mcnemar, wilson
from .records import CellSpec, CellSummary, Divergence, Item, ItemResult, Paired, Rate

OTHER_WORDS = "no divergence: its vocabulary differs from the reference's"
_STAGES = (*STAGES, "decode")


@dataclass(frozen=True)
class CellRun:
    """How a cell ended: its lines, status ("done", "failed", "partial") with the reason, and its files' sizes.

    toy: as in CellSummary. other_words: its vocabulary is not the reference's.
    """

    spec: CellSpec
    rows: Sequence[ItemResult] = ()
    status: str = "partial"
    reason: str = ""
    model_bytes: int = 0
    mmproj_bytes: int = 0
    toy: bool = False
    other_words: bool = False


def summarise(cell: CellRun, items: Sequence[Item], reference: CellRun, kld_wanted: bool) -> CellSummary:
    """One row of the report. reference: the reference cell, which may be `cell` itself."""
    is_reference = cell.spec.key == reference.spec.key
    order = {item.id: item for item in items}
    rows = [row for row in cell.rows if row.id in order]
    there = {row.id: row for row in reference.rows} if reference.status == "done" else {}
    pairs = [] if is_reference else [(there[row.id], row) for row in rows if row.id in there]
    stats = [row.stats for row in rows]
    warm = [row.stats for row in rows if not row.first]
    return CellSummary(
        model=cell.spec.model,
        setting=cell.spec.setting,
        is_reference=is_reference,
        status=cell.status,
        reason=cell.reason,
        n_items=len(items),
        n_done=len(rows),
        accuracy=_accuracy(rows),
        by_tag=_by_tag(rows, order),
        paired=_paired(pairs),
        agreement=wilson(sum(a.text == b.text for a, b in pairs), len(pairs)) if pairs else None,
        divergence=_divergence(rows),
        ttft_ms=_spread(warm, lambda s: s["ttft_ms"]),
        stages=_stages(warm),
        prefill_tps=_spread(warm, lambda s: s["prefill_tps"]),
        decode_tps=_spread(warm, lambda s: s["decode_tps"]),
        n_visual_full=_mean(stats, "n_visual_full"),
        n_visual=_mean(stats, "n_visual"),
        flops_share=_mean(stats, "flops_share", 1.0),
        kv_bytes=_mean(stats, "kv_bytes"),
        peak_rss_bytes=max((row.peak_rss_bytes for row in rows), default=0),
        model_bytes=cell.model_bytes,
        mmproj_bytes=cell.mmproj_bytes,
        toy=cell.toy,
        machines=tuple(dict.fromkeys(row.machine for row in rows if row.machine)),
        notes=tuple(_notes(cell, rows, len(items), reference, kld_wanted)),
    )


def _accuracy(rows: Sequence[ItemResult]) -> Rate | None:
    known = [row.right for row in rows if row.right is not None]
    return wilson(sum(known), len(known)) if known else None


def _by_tag(rows: Sequence[ItemResult], items: Mapping[str, Item]) -> dict[str, Rate]:
    tags = sorted({tag for row in rows if row.right is not None for tag in items[row.id].tags})
    groups = {tag: [row.right for row in rows if row.right is not None and tag in items[row.id].tags] for tag in tags}
    return {tag: wilson(sum(map(bool, right)), len(right)) for tag, right in groups.items()}


def _paired(pairs: Sequence[tuple[ItemResult, ItemResult]]) -> Paired | None:
    known = [(a.right, b.right) for a, b in pairs if a.right is not None and b.right is not None]
    return mcnemar([a for a, _ in known], [b for _, b in known]) if known else None


def _divergence(rows: Sequence[ItemResult]) -> Divergence | None:
    kld = [value for row in rows for value in row.kld or ()]
    return divergence(kld, [same for row in rows for same in row.top1 or ()]) if kld else None


def _spread(stats: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> Spread | None:
    """Over the items that have it: a rate is 0 where there was nothing to time."""
    values = [found for found in map(value, stats) if found > 0]
    return Spread.of(values) if values else None


def _stages(stats: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    """Milliseconds per stage; a stage that never ran is left out."""
    times = {stage: [float(s[f"{stage}_ms"]) for s in stats] for stage in _STAGES}
    return {stage: Spread.of(values) for stage, values in times.items() if any(values)}


def _mean(stats: Sequence[dict[str, Any]], name: str, default: float = 0.0) -> float:
    return fmean(s[name] for s in stats) if stats else default


def _notes(cell: CellRun, rows: Sequence[ItemResult], n_items: int, reference: CellRun, kld_wanted: bool) -> list[str]:
    notes = []
    if cell.toy:
        notes.append("the bundled model is a toy that knows drawn shapes only: its answers to this suite mean nothing")
    if rows and len(rows) < n_items:
        notes.append(f"figures over {len(rows)} of {n_items} questions")
    if rows and all(row.first for row in rows):
        notes.append("no times: the first question of a process is its warm-up")
    if cell.spec.key != reference.spec.key and reference.status == "failed":
        notes.append("the reference failed: nothing is paired")
    if cell.other_words:
        notes.append(OTHER_WORDS)
    if not kld_wanted:
        notes.append("KL divergence was not asked for")
    return notes
