"""What the needle test found: its numbers, and tables of them as text (Markdown) and as a page. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...demo.world import PARTS
from ...store.files import replaced
from ..html import escape, page

_SHARES = ("ranking", "layer", "needle's", "clips", "kept", "share of kept", "by chance", "difference (95 %)")
_PLACES = ("ranking", "layer", "needle's", *(f"kept, {part}" for part in PARTS), "start - end", "of all tokens")
_TITLES = (
    "Of the tokens that are kept, how many are the needle's?",
    "Of the needle's tokens, how many are kept, by where in the clip it appears?",
)
_NOTE = (
    "Means over clips with their 95 % interval, and the number of clips in brackets. A ranking without a pull to the "
    "front keeps as much of a needle at the end as of one at the start."
)


@dataclass(frozen=True)
class Row:
    """One ranking, one layer, one meaning of "the needle's": means over clips of shares of the surviving tokens.

    n_clips: those where the share can differ from chance at all. kept: survivors per clip. low, high: 95 % interval of
    the mean of the paired differences share - chance.
    """

    importance: str
    layer: int
    kind: str
    n_clips: int
    kept: float
    share: float
    chance: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """One ranking, one layer, one meaning of "the needle's", one part of the clip where the needle appears.

    n_clips: with a needle there. kept: share of the needle's tokens that enter the layer, mean over clips; low, high:
    its 95 % interval, within 0 and 1. of_all: the share of all tokens that do.
    """

    importance: str
    layer: int
    kind: str
    part: str
    n_clips: int
    kept: float
    low: float
    high: float
    of_all: float


@dataclass(frozen=True)
class Measured:
    """shares: of survivors, over all clips. places: of the needle's tokens, by where in the clip it appears."""

    shares: list[Row]
    places: list[Place]


def text(found: Measured) -> str:
    """Markdown."""
    tables = ((_SHARES, share_rows(found.shares)), (_PLACES, place_rows(found.places)))
    return "\n\n".join(_markdown(head, rows) for head, rows in tables)


def write_page(found: Measured, path: Path) -> None:
    """The same tables as a page that opens offline, whole or not at all."""
    tables = ((_SHARES, share_rows(found.shares)), (_PLACES, place_rows(found.places)))
    parts = [f"<h2>{title}</h2>\n{_html(*table)}" for title, table in zip(_TITLES, tables, strict=True)]
    body = "<h1>Does pruning keep what the question asks about?</h1>\n" + "\n".join(parts) + f"\n<p>{_NOTE}</p>"
    with replaced(path) as partial:
        partial.write_text(page("Needle test", body), encoding="utf-8")


def share_rows(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [r.importance, str(r.layer), r.kind, str(r.n_clips), f"{r.kept:.1f}", f"{r.share:.1%}", f"{r.chance:.1%}",
         f"{100 * r.difference:+.1f} ({100 * r.low:+.1f} to {100 * r.high:+.1f})"]
        for r in rows
    ]  # fmt: skip


def place_rows(places: Sequence[Place]) -> list[list[str]]:
    """One row for each ranking, layer and meaning; "-" where no clip has its needle in that part."""
    found = {(p.importance, p.layer, p.kind, p.part): p for p in places}
    rows = []
    for how, layer, kind in dict.fromkeys((p.importance, p.layer, p.kind) for p in places):
        parts = [found.get((how, layer, kind, part)) for part in PARTS]
        there = [p for p in parts if p]
        n_clips = sum(p.n_clips for p in there)
        of_all = sum(p.of_all * p.n_clips for p in there) / n_clips
        first, last = parts[0], parts[-1]
        apart = f"{100 * (first.kept - last.kept):+.1f}" if first and last else "-"
        rows.append([how, str(layer), kind, *(_cell(p) for p in parts), apart, f"{of_all:.1%}"])
    return rows


def _cell(place: Place | None) -> str:
    if place is None:
        return "-"
    return f"{place.kept:.1%} ({100 * place.low:.1f} to {100 * place.high:.1f}) [{place.n_clips}]"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in head)
    body = "\n".join(
        f"<tr><th scope='row'>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<div class='scroll' tabindex='0'><table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>"
