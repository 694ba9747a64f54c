"""Which plots a comparison gets, and their points: a cell is a point, its model the colour, its setting the shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .axes import Measure
from .figures import KLD_ZERO, kld, number, percent, rate, size
from .plots import LARGE, LARGE_ON_PHONE, Point, scatter
from .records import CellSummary, Report

Value = Callable[[CellSummary], float | None]


@dataclass(frozen=True)
class Chart:
    """A drawn plot: its heading and its SVG. on_phone: of the large plot, the same drawn for a narrow screen."""

    title: str
    svg: str
    on_phone: str = ""


def _share(cell: CellSummary) -> float | None:
    return cell.flops_share if cell.n_done else None


def _file_bytes(cell: CellSummary) -> float | None:
    return cell.model_bytes + cell.mmproj_bytes or None


def _short_size(n: float) -> str:
    """A tick: 2 MB rather than 2.00 MB."""
    figure, unit = size(n).split(" ")
    return f"{float(figure):g} {unit}"


def _short_kld(nats: float) -> str:
    return "0" if nats <= KLD_ZERO else f"{nats:g}" if nats >= 1e-3 else f"{nats:.0e}".replace("e-0", "e-")


_FLOPS = Measure("FLOPs share of the prefill", "less", lambda v: f"{v:g}", limits=(0, 1))
_TTFT = Measure("time to first token, ms (median)", "less", lambda v: f"{v:g}", scale="auto")
_KV = Measure("KV cache, mean", "less", _short_size, scale="auto")
_RSS = Measure("peak memory (RSS)", "less", _short_size, scale="auto")
_FILES = Measure("model and mmproj files", "less", _short_size, scale="auto")
_RIGHT = Measure("right", "more", lambda v: f"{100 * v:g}%", limits=(0, 1))
_KLD = Measure("mean KLD, nats", "less", _short_kld, scale="auto", zero=KLD_ZERO)


def _right(cell: CellSummary) -> float | None:
    return cell.accuracy.share if cell.accuracy is not None else None


def _mean_kld(cell: CellSummary) -> float | None:
    return cell.divergence.mean if cell.divergence is not None else None


_CHARTS: tuple[tuple[str, Measure, Value, Measure, Value], ...] = (
    ("Accuracy over time to first token", _TTFT, lambda c: c.ttft_ms.median if c.ttft_ms else None, _RIGHT, _right),
    ("Accuracy over FLOPs", _FLOPS, _share, _RIGHT, _right),
    ("Accuracy over KV cache", _KV, lambda c: c.kv_bytes or None, _RIGHT, _right),
    ("KL divergence over FLOPs", _FLOPS, _share, _KLD, _mean_kld),
    ("KL divergence over file size", _FILES, _file_bytes, _KLD, _mean_kld),
    ("Accuracy over peak memory", _RSS, lambda c: c.peak_rss_bytes or None, _RIGHT, _right),
)


def charts(report: Report) -> list[Chart]:
    """The plots for which at least one cell has both measures; the first of them is the large one."""
    drawn: list[Chart] = []
    for i, (title, x, x_of, y, y_of) in enumerate(_CHARTS):
        points = _points(report, x_of, y_of)
        if not points:
            continue
        if drawn:
            drawn.append(Chart(title, scatter(f"plot{i}", title, x, y, points)))
        else:
            wide = scatter(f"plot{i}", title, x, y, _shortened(points, 40), LARGE)
            narrow = scatter(f"plot{i}-phone", title, x, y, _shortened(points, 26), LARGE_ON_PHONE)
            drawn.append(Chart(title, wide, narrow))
    return drawn


def _shortened(points: list[Point], limit: int) -> list[Point]:
    return [replace(point, label=short(point.label, limit)) for point in points]


def names(report: Report) -> dict[str, str]:
    """By a cell's key, its name where there is little room: without the model or the setting that all share."""
    one_model, one_setting = len(models(report)) == 1, len(settings(report)) == 1
    if one_model == one_setting:
        return {cell.key: cell.key for cell in report.cells}
    return {cell.key: cell.setting if one_model else cell.model for cell in report.cells}


def models(report: Report) -> list[str]:
    """In the order of the report; the place is the colour."""
    return list(dict.fromkeys(cell.model for cell in report.cells))


def settings(report: Report) -> list[str]:
    """In the order of the report; the place is the shape."""
    return list(dict.fromkeys(cell.setting for cell in report.cells))


def _points(report: Report, x_of: Value, y_of: Value) -> list[Point]:
    colours, shapes, called = models(report), settings(report), names(report)
    points = []
    for place, cell in enumerate(report.cells, 1):
        x, y = x_of(cell), y_of(cell)
        if x is None or y is None:
            continue
        interval = cell.accuracy if y_of is _right else None
        points.append(
            Point(
                x,
                y,
                called[cell.key],
                place,
                tip(cell),
                colours.index(cell.model),
                shapes.index(cell.setting),
                interval.low if interval else None,
                interval.high if interval else None,
                ranked=cell.status == "done",
            )
        )
    return points


def short(text: str, limit: int) -> str:
    """The text, or its two ends: the ends of file and setting names are what tells them apart."""
    keep = limit - 1
    return text if len(text) <= limit else f"{text[: keep - keep // 2]}\u2026{text[-(keep // 2) :]}"


def tip(cell: CellSummary) -> str:
    """What a point says when asked."""
    right = rate(cell.accuracy)
    parts = [
        f"{right.text} right ({right.spread})" if right else "",
        f"KLD {kld(cell.divergence.mean)}" if cell.divergence else "",
        f"FLOPs {percent(cell.flops_share)}",
        f"TTFT {number(cell.ttft_ms.median)} ms" if cell.ttft_ms else "",
        f"KV {size(cell.kv_bytes)}" if cell.kv_bytes else "",
        f"RSS {size(cell.peak_rss_bytes)}" if cell.peak_rss_bytes else "",
        "" if cell.status == "done" else f"{cell.status}, {cell.n_done} of {cell.n_items}",
    ]
    return f"{cell.key}: {', '.join(part for part in parts if part)}"
