"""An explanation as a contact sheet, as plain data for JSON, and as one HTML page."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

from PIL import Image

from ...drawing.colours import FOG, FOG_SHARE, HEAT_SHARE, RAMP, Pixels
from ...drawing.layers import (
    Band,
    all_bands,
    bands_of,
    default_bands,
    heat_levels,
    label,
    n_media,
    stage_layers,
    tokens_of,
)
from ...drawing.sheet import sheet
from ...models.pieces import TokenGrid
from .. import html
from .asking import Explanation, setting_line

_HERE = Path(__file__).parent
_JPEG_QUALITY = 85


def heading(found: Explanation) -> list[str]:
    """Lines above the pictures."""
    answer = found.answer.text.strip() or "(empty)"
    lines = [found.question, f"Answer: {answer}", f"{found.model}: {setting_line(found)}"]
    return [*lines, f"Note: {found.assumed}"] if found.assumed else lines


def sheet_image(found: Explanation, layers: list[int] | None = None) -> Pixels:
    """The contact sheet, uint8 RGB [H, W, 3]. layers: None takes those where something changes."""
    trace, title = found.trace, heading(found)
    if layers is not None:
        return sheet(trace, [band for il in layers for band in bands_of(trace, il)], title)
    chosen, every = default_bands(trace), all_bands(trace)
    if len(chosen) < len(every):
        title.append(f"Shown are {len(chosen)} of {len(every)} rows of pictures; name a layer to draw any one")
    return sheet(trace, chosen, title)


def report(found: Explanation) -> dict[str, Any]:
    """Plain data: what each stage of layers keeps, scores, and which token covers which slot of which picture."""
    trace, stats = found.trace, found.answer.stats
    return {
        "model": found.model,
        "question": found.question,
        "answer": found.answer.text,
        "media": list(found.media),
        "setting": setting_line(found),
        "assumed": found.assumed,
        "n_layer": len(trace.kept),
        "n_visual_full": stats.n_visual_full,
        "n_visual": stats.n_visual,
        "newlines": [i for i, group in enumerate(trace.groups) if group.slot < 0],
        "flops_share": stats.flops_share,
        "stages": stages(found),
        "importance": {il: scores.tolist() for il, scores in trace.importance.items()},
        "pictures": [_picture(found, grid) for grid in trace.grids],
        "warnings": list(found.answer.warnings),
        "toy": found.answer.toy,
        "stats": stats.to_dict(),
    }


def stages(found: Explanation) -> list[dict[str, Any]]:
    """Layers [first, last] that see the same visual tokens, and which."""
    kept, begins = found.trace.kept, stage_layers(found.trace)
    ends = [*begins[1:], len(kept)]
    return [{"first": a, "last": b - 1, "kept": kept[a].tolist()} for a, b in zip(begins, ends, strict=True)]


def _picture(found: Explanation, grid: TokenGrid) -> dict[str, Any]:
    rows, cols = grid.owners.shape
    return {
        "label": label(grid, n_media(found.trace)),
        "media": grid.media,
        "index": grid.index if grid.index >= 0 else None,
        "timestamp": None if math.isnan(grid.timestamp) else grid.timestamp,
        "rows": rows,
        "cols": cols,
        "tokens": tokens_of(grid).tolist(),
        "owners": grid.owners.ravel().tolist(),
    }


# --- the page ---------------------------------------------------------------------------------------------------------


def page_html(found: Explanation) -> str:
    """One self-contained page: a slider over layers, every picture once, and the sheet where scripts are off."""
    question, *lines = heading(found)
    head = f"<h1>{html.escape(question)}</h1>" + "".join(_paragraph(i, line) for i, line in enumerate(lines))
    sheet_uri = data_uri(sheet_image(found))
    still = f'<noscript><div class="scroll"><img class="sheet" alt="contact sheet" src="{sheet_uri}"></div></noscript>'
    body = "\n".join([head, still, (_HERE / "page.html").read_text("utf-8"), html.embed_json("data", page_data(found))])
    css, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return html.page(f"{found.question} - visual tokens", body, css, script)


def _paragraph(i: int, line: str) -> str:
    return f'<p class="{"answer" if i == 0 else "muted"}">{html.escape(line)}</p>'


def page_data(found: Explanation) -> dict[str, Any]:
    """What the page's script reads: the report's core, pictures as data URIs, heat levels in place of scores."""
    trace, whole = found.trace, report(found)
    wanted = ("n_layer", "n_visual", "newlines", "stages", "pictures")
    data = {name: whole[name] for name in wanted}
    for shown, grid in zip(data["pictures"], trace.grids, strict=True):
        height, width = grid.pixels.shape[:2]
        shown |= {"src": data_uri(grid.pixels), "width": width, "height": height}
    data["heat"] = {il: _levels(found, il) for il in trace.importance}
    data["scores"] = {il: [float(f"{score:.4g}") for score in scores] for il, scores in trace.importance.items()}
    return {**data, "ramp": RAMP, "fog": FOG, "fogShare": FOG_SHARE, "heatShare": HEAT_SHARE}


def _levels(found: Explanation, il: int) -> list[float]:
    """In the order of kept[il], as the scores are."""
    levels = heat_levels(found.trace, il)[found.trace.kept[il]]
    return [round(float(level), 3) for level in levels]


def data_uri(pixels: Pixels) -> str:
    """A JPEG data: address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


__all__ = ["Band", "data_uri", "heading", "page_data", "page_html", "report", "sheet_image", "stages"]
