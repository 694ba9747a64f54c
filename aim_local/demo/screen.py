"""How the demo looks: two sides with their bars on a terminal, the same in plain lines elsewhere.

Knows Side and rich. A bar is a measured value beside the other side's, and never anything else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..visible import answer_text
from .sides import Side

SIDE_BY_SIDE = 76  # columns from which two panels fit
WIDEST = 128
_STAGES = {"decode_video": "reading the clip", "vision": "looking at the frames", "prefill": "reading the tokens"}
_COLOURS = ("cyan", "green")


def is_plain(out: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether lines of text are all that may be written there: no terminal, a dumb one, or no colours wished."""
    dumb = environ.get("TERM", "").lower() in ("dumb", "unknown")
    return not out.isatty() or dumb or bool(environ.get("NO_COLOR"))


def board(sides: Sequence[Side], width: int, ascii_only: bool = False) -> RenderableType:
    """Both sides, beside each other where there is room, else one below the other. width: columns of the terminal."""
    width = min(width, WIDEST)
    panels = [_panel(i, sides, width, ascii_only) for i in range(len(sides))]
    if width < SIDE_BY_SIDE:
        return Group(*panels)
    grid = Table.grid(padding=(0, 1), expand=False)
    grid.add_row(*panels)
    return grid


def _panel(i: int, sides: Sequence[Side], width: int, ascii_only: bool) -> Panel:
    wide = (width - 1) // 2 if width >= SIDE_BY_SIDE else width
    side, colour = sides[i], _COLOURS[i % len(_COLOURS)]
    rows = Table.grid(padding=(0, 1))
    rows.add_column(width=11, no_wrap=True)
    bar = max(1, wide - 4 - 11 - 1 - 1 - 8)
    rows.add_column(width=bar, no_wrap=True)
    rows.add_column(width=8, justify="right", no_wrap=True)
    for label, shares, text in _rows(side, sides):
        rows.add_row(Text(label, "dim"), Text(_bar(shares, bar, ascii_only), colour), text)
    doing = Text(_doing(side), "dim", no_wrap=True, overflow="ellipsis")
    answer = Text.assemble(("answer      ", "dim"), (_printable(side.text), f"bold {colour}"), no_wrap=True)
    answer.overflow = "ellipsis"
    title = Text.assemble((side.name, "bold"), ("  " + side.setting, "dim"))
    return Panel(Group(rows, answer, doing), title=title, title_align="left", width=wide, border_style=colour)


def _rows(side: Side, sides: Sequence[Side]) -> list[tuple[str, float, str]]:
    """Label, share of the longest bar, and text of each measure. Nothing before it was measured."""
    tokens, longest_tokens = _visual(side), max(map(_visual, sides))
    kv, longest_kv = _kv(side), max(map(_kv, sides))
    ms, longest_ms = side.elapsed_ms, max(s.elapsed_ms for s in sides)
    return [
        ("tokens", tokens / longest_tokens if tokens else 0.0, f"{tokens}" if tokens else ""),
        ("KV cache", kv / longest_kv if kv else 0.0, kv_text(kv) if kv else ""),
        ("first token" if side.text else "time", ms / longest_ms if longest_ms else 0.0, f"{ms:.0f} ms" if ms else ""),
    ]


def _visual(side: Side) -> int:
    return side.answer.stats.n_visual if side.answer else 0


def _kv(side: Side) -> int:
    return side.answer.stats.kv_bytes if side.answer else 0


def kv_text(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.2f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def _bar(share: float, width: int, ascii_only: bool) -> str:
    """At least one character for what is there."""
    return ("#" if ascii_only else "\u2588") * max(round(share * width), 1 if share > 0 else 0)


def _doing(side: Side) -> str:
    if side.answer is not None:
        return f"{side.answer.stats.n_frames} frames, {side.answer.stats.n_generated} tokens answered"
    if not side.has_begun:
        return "waits for its turn"
    stage = _STAGES.get(side.stage, "begins" if not side.stage else "answering")
    return f"{stage}, {side.done} of {side.total}" if side.total and side.stage in _STAGES else stage


def _printable(text: str) -> str:
    """No control codes from a model on the terminal."""
    return answer_text(" ".join(text.split()), terminal=True)


def plain_line(side: Side) -> str:
    """A side that has its answer."""
    return (
        f"{side.name} ({side.setting}): {_printable(side.text)} | {_visual(side)} visual tokens | KV cache "
        f"{kv_text(_kv(side))} | first token after {side.elapsed_ms:.0f} ms"
    )


def outcome(full: Side, reduced: Side) -> str:
    """What the two came to, in a sentence."""
    same = "The same answer" if full.text.strip() == reduced.text.strip() else "Another answer"
    share = _kv(reduced) / _kv(full)
    return f"{same} from {_visual(reduced)} visual tokens instead of {_visual(full)}, with {share:.0%} of the KV cache."


def print_text(console: Console, text: str, style: str = "") -> None:
    """A paragraph as wide as the boards; whole lines where the console wraps none. Nothing in it is markup."""
    if console.soft_wrap:
        console.print(Text(text, style))
    else:
        console.print(Text(text, style), width=min(console.width, WIDEST))
