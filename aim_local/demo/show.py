"""The demo from start to end: a clip asked with all visual tokens and with fewer, a page, commands for one's own clip.

Before that, questions about the bundled clips check that the build works. Knows the order; asking is sides.py's
business, the looks are screen.py's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.live import Live

from ..llm import VisionLLM
from ..store.known import KnownModel, known_models
from ..store.names import bundled_folder
from ..visible import visible
from .clips import is_right
from .desktop import has_desktop, open_page
from .screen import board, is_plain, outcome, plain_line, print_text
from .sides import LOAD, Case, Checked, Side, ask, both_sides, bundled_cases, check

ROOM = 4.2e9  # bytes of memory: what a machine of 8 GB has to spare

WritePage = Callable[[VisionLLM, Case, Side, Path], Path]


def run(out: Path, write_page: WritePage, may_open: bool = True) -> int:
    """0 where every answer is right, else 1. write_page: makes the page of a side's answer in a folder."""
    plain = is_plain(sys.stdout)
    console = Console(force_terminal=not plain, no_color=plain, highlight=False, soft_wrap=plain)
    cases = bundled_cases((bundled_folder() or Path()).parent / "clips")
    with VisionLLM.load(config=LOAD) as llm:
        _introduce(console, cases[0])
        checked = check(llm, cases)  # first: a process's first answer is slower, and neither side shall pay for it
        full, reduced = show_sides(console, llm, cases[0], plain)
        print_text(console, outcome(full, reduced))
        bars = "" if plain else " All bars are measured."
        print_text(console, f"One after the other: one model serves one call at a time.{bars}", "dim")
        page = write_page(llm, cases[0], reduced, out)
    _show_page(console, page, may_open and not plain and has_desktop())
    _own_clip(console)
    works = _tell_check(console, checked)
    return 0 if works and all(is_right(side.text, cases[0].expected) for side in (full, reduced)) else 1


def _introduce(console: Console, case: Case) -> None:
    print_text(console, "aim-local: ask questions about a video on your own machine, offline.", "bold")
    print_text(console, "The bundled toy model knows coloured shapes only, and these times are the toy's.")
    print_text(console, f"\n{case.clip.name}: {case.question}", "bold")


def show_sides(console: Console, llm: VisionLLM, case: Case, plain: bool) -> tuple[Side, Side]:
    """Both sides, the second after the first; on a terminal live."""
    now = list(both_sides())
    if plain:
        for i in range(len(now)):
            now[i] = ask(llm, case, now[i], partial(now.__setitem__, i))
            print_text(console, plain_line(now[i]))
        return now[0], now[1]
    ascii_only = not console.encoding.startswith("utf")
    # drawn by a thread of its own: what is drawn inside a call would be measured as the model's time
    with Live(
        get_renderable=lambda: board(now, console.width, ascii_only), console=console, refresh_per_second=20
    ) as live:
        for i in range(len(now)):
            now[i] = ask(llm, case, now[i], partial(now.__setitem__, i))
            live.refresh()
    return now[0], now[1]


def _show_page(console: Console, page: Path, may_open: bool) -> None:
    opened = ", in your browser" if may_open and open_page(page) else ""
    print_text(console, f"\nWhich pieces of the frames it kept, layer by layer{opened}:")
    print(f"  {visible(str(page.resolve()))}")


def _own_clip(console: Console) -> None:
    model = real_model()
    print_text(console, f"\nYour own clip, with a real model ({model.download / 1e9:.1f} GB, once):")
    print(f"  aim-local pull {model.name}\n  aim-local chat {model.name} clip.mp4")


def real_model() -> KnownModel:
    """The largest known model that a machine of 8 GB has room for."""
    return max((model for model in known_models() if model.memory <= ROOM), key=lambda model: model.memory)


def _tell_check(console: Console, checked: Sequence[Checked]) -> bool:
    """Whether all is right."""
    wrong = [c for c in checked if not c.is_right]
    works = "the build works" if not wrong else "the build does not work"
    n = len(checked) - len(wrong)
    print_text(console, f"\n{n} of {len(checked)} questions about the bundled clips answered right: {works}.")
    for one in wrong:
        print(f"  {one.case.clip.name}: {one.case.question} {one.text!r} is wrong, it is {one.case.expected!r}")
    return not wrong
