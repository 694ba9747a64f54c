"""Results in aligned columns. Plain text, so that it can be piped."""

from __future__ import annotations

from collections.abc import Sequence

from aim_local.visible import visible

from . import _out


def print_table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Columns as wide as their widest cell; those in `right` are numbers. The first row is the heading."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        _out.line("  ".join(cells).rstrip())


def print_markdown(rows: Sequence[Sequence[str]]) -> None:
    """The same as a Markdown table, for documents."""
    for number, row in enumerate(rows):
        _out.line(f"| {' | '.join(cell.strip() for cell in row)} |")
        if number == 0:
            _out.line("|---" * len(row) + "|")


def size(n_bytes: float) -> str:
    """Bytes for people: 16.2 MB."""
    return _scaled(n_bytes, (" B", " kB", " MB", " GB", " TB"))


def count(n: float) -> str:
    """Parameters for people: 3.7M, 7.6B."""
    return _scaled(n, ("", "k", "M", "B", "T"))


def _scaled(n: float, units: tuple[str, ...]) -> str:
    step = 0
    while n >= 1000 and step + 1 < len(units):
        n, step = n / 1000, step + 1
    return f"{n:.1f}{units[step]}" if step else f"{n:.0f}{units[0]}"


def types(counts: dict[str, int]) -> str:
    """Tensors per weight type: Q8_0 x 112, F32 x 90."""
    return ", ".join(f"{name} x {n}" for name, n in counts.items())
