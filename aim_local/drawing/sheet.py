"""The contact sheet: rows of pictures with captions and a legend, as one image. Knows layout and Pillow, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..models.pieces import KeptTokens, TokenGrid
from .colours import Pixels, fogged, hues, ramp
from .layers import (
    Band,
    check_layer,
    check_pictures,
    default_bands,
    heat_levels,
    kept_tokens,
    label,
    n_media,
    tokens_of,
)
from .paint import paint, paint_heat, sized

_PAPER, _INK, _MUTED, _BAD = (255, 255, 255), (27, 31, 36), (87, 96, 106), (130, 136, 144)
_GAP, _MARGIN = 10, 16
_MIN_WIDTH = 720  # captions and the legend need room, however few pictures there are
_BROWSER_WIDTH = 1600


@dataclass(frozen=True)
class Layout:
    """columns of pictures whose longer side is `side` pixels."""

    columns: int
    side: int

    @property
    def width(self) -> int:
        return max(_MIN_WIDTH, self.columns * (self.side + _GAP) - _GAP + 2 * _MARGIN)


def plan_layout(n_pictures: int, n_bands: int) -> Layout:
    """Large pictures where there are few. Rows as full as they can be."""
    side = 224 if n_pictures * n_bands <= 32 else 144 if n_pictures * n_bands <= 160 else 112
    if n_bands > 1 and n_pictures <= 8:
        return Layout(n_pictures, 224 if n_pictures <= 4 else 144)
    most = min(n_pictures, max(1, (_BROWSER_WIDTH - 2 * _MARGIN) // (side + _GAP)))
    wanted = min(most, max(4, round((1.5 * n_pictures) ** 0.5)))
    choices = range(max(1, wanted - 2), min(most, wanted + 2) + 1)
    columns = min(choices, key=lambda c: (-n_pictures % c, abs(c - wanted)))
    return Layout(columns, side)


def layer_sheet(trace: KeptTokens, il: int) -> Pixels:
    """What entered layer il, uint8 RGB [H, W, 3]. Raises UsageError (no such layer, no pictures)."""
    check_pictures(trace)
    check_layer(trace, il)
    return sheet(trace, [Band(int(il))])


def sheet(trace: KeptTokens, bands: Sequence[Band] | None = None, title: Sequence[str] = ()) -> Pixels:
    """Bands under each other below `title` (the first line is the heading), a legend last. uint8 RGB [H, W, 3].

    bands: None takes the first layer of every stage and every scored layer. Raises UsageError without pictures.
    """
    check_pictures(trace)
    chosen = default_bands(trace) if bands is None else list(bands)
    layout = plan_layout(len(trace.grids), len(chosen))
    parts = [_heading(title, layout.width)] if title else []
    parts += [_band(trace, band, layout) for band in chosen]
    parts.append(_legend(layout.width, heat=any(band.heat for band in chosen)))
    return np.concatenate(parts)


def caption(trace: KeptTokens, band: Band) -> str:
    """Layer, and how many tokens: one line above a band."""
    n, total = len(trace.kept[band.il]), len(trace.groups)
    if band.heat:
        return f"Importance in layer {band.il}, of the {n} visual tokens there"
    return f"Layer {band.il}: {n} of {total} visual tokens ({n / total:.0%}){_newlines(trace, band.il)}"


def _newlines(trace: KeptTokens, il: int) -> str:
    """Newline rows cover no patch, so they are counted apart."""
    total = sum(group.slot < 0 for group in trace.groups)
    kept = sum(trace.groups[i].slot < 0 for i in trace.kept[il])
    return f", {kept} of {total} newline row{'s' if total != 1 else ''} among them" if total else ""


# --- parts, each uint8 [h, width, 3] ----------------------------------------------------------------------------------


def _heading(lines: Sequence[str], width: int) -> Pixels:
    rows = [
        (line, 20 if i == 0 else 14)
        for i, text in enumerate(lines)
        for line in _wrap(text, 20 if i == 0 else 14, width)
    ]
    image = Image.new("RGB", (width, _MARGIN + sum(size + 6 for _, size in rows)), _PAPER)
    draw, y = ImageDraw.Draw(image), _MARGIN
    for line, size in rows:
        draw.text((_MARGIN, y), line, _INK if size == 20 else _MUTED, _font(size))
        y += size + 6
    return np.asarray(image)


def _band(trace: KeptTokens, band: Band, layout: Layout) -> Pixels:
    """A caption, then the pictures in rows."""
    head, foot = 36, 22
    sizes = [sized(grid, layout.side) for grid in trace.grids]
    step = max(h for h, _ in sizes) + foot + _GAP
    n_rows = -(-len(sizes) // layout.columns)
    image = Image.new("RGB", (layout.width, head + n_rows * step), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 12), caption(trace, band), _INK, _font(16))
    kept = kept_tokens(trace, band.il)
    levels = heat_levels(trace, band.il) if band.heat else None
    for i, (grid, size) in enumerate(zip(trace.grids, sizes, strict=True)):
        x, y = _MARGIN + i % layout.columns * (layout.side + _GAP), head + i // layout.columns * step
        picture = paint(grid, kept, size) if levels is None else paint_heat(grid, levels, size)
        _header(draw, (x, y), grid, kept, layout.side, n_media(trace))
        image.paste(Image.fromarray(picture), (x, y + foot))
    return np.asarray(image)


def _header(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    grid: TokenGrid,
    kept: NDArray[np.bool_],
    side: int,
    n_items: int,
) -> None:
    """Name and time on the left, kept/total on the right; bold counts would need a second font, so colour tells."""
    tokens = tokens_of(grid)
    n = int(kept[tokens].sum())
    count = f"{n}/{len(tokens)}"
    width = _font(13).getlength(count)
    draw.text((at[0] + side - width, at[1] + 3), count, _INK if n else _BAD, _font(13))
    draw.text((at[0], at[1] + 3), _shortened(label(grid, n_items), 13, side - width - 6), _MUTED, _font(13))


def _legend(width: int, heat: bool) -> Pixels:
    """Two rows: what the brightness means, and what the colours mean."""
    image = Image.new("RGB", (width, 100 if heat else 72), _PAPER)
    draw = ImageDraw.Draw(image)
    swatch = _swatch()
    x = _MARGIN
    for picture, text in ((swatch, "kept"), (fogged(swatch), "dropped")):
        image.paste(Image.fromarray(picture), (x, 10))
        draw.text((x + 34, 12), text, _INK, _font(14))
        x += 34 + round(_font(14).getlength(text)) + 24
    draw.rectangle((x, 10, x + 25, 29), outline=tuple(int(c) for c in hues(1, 1)[0]), width=2)
    draw.text(
        (x + 34, 12), "patches of one merged token: one outline colour, in all pictures it covers", _INK, _font(14)
    )
    draw.text((_MARGIN, 42), "3/4 above a picture: kept tokens of all tokens that cover it", _MUTED, _font(14))
    if heat:
        bar = np.broadcast_to(ramp(np.linspace(0, 1, 200)), (16, 200, 3))
        draw.text((_MARGIN, 70), "importance: lowest", _INK, _font(14))
        x = _MARGIN + round(_font(14).getlength("importance: lowest")) + 8
        image.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, 72))
        draw.text((x + 208, 70), "highest, by place in the ranking", _INK, _font(14))
    return np.asarray(image)


def _swatch() -> Pixels:
    """26 x 20 pixels of a small picture: sky, sun and grass."""
    out = np.empty((20, 26, 3), np.uint8)
    out[:12], out[12:], out[3:9, 16:22] = (70, 140, 235), (60, 165, 70), (250, 215, 60)
    return out


# --- text -------------------------------------------------------------------------------------------------------------


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels have FreeType"
    return font


def _wrap(text: str, size: int, width: int) -> list[str]:
    """Lines no wider than the sheet; a word that is wider alone is cut."""
    room, lines = width - 2 * _MARGIN, [""]
    for word in text.split():
        word = _shortened(word, size, room)
        joined = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(joined) <= room:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _shortened(text: str, size: int, room: float) -> str:
    if _font(size).getlength(text) <= room:
        return text
    while text and _font(size).getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."
