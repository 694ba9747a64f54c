"""Rows of an item's tiles, and why each was or was not encoded: what the families ask when they encode (base.TileRows).

Knows what is known already. Which tiles may share rows is models/reuse.py's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from ..models.base import Frame
from ..models.pieces import Rows
from ..models.reuse import Seen


@dataclass(frozen=True)
class TileCounts:
    """Tiles (frames of videos, tiles of pictures) by where their rows came from.

    encoded: the tower's runs. equal: pixels equal to those of an encoded one. near: those that differ by noise only.
    """

    encoded: int = 0
    equal: int = 0
    near: int = 0

    def __add__(self, other: TileCounts) -> TileCounts:
        return TileCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class ItemRows:
    """Rows by number of the tile.

    seen: None encodes every tile. on_step: called after every tile whose rows were not here yet.
    """

    def __init__(self, seen: Seen | None, on_step: Callable[[], None]) -> None:
        self._seen, self._on_step = seen, on_step
        self._rows: dict[int, Rows] = {}
        self.counts = TileCounts()
        self.ms = 0.0  # in the encoder

    def __call__(self, number: int, pixels: Frame | None, encode: Callable[[], Rows]) -> Rows:
        rows = self._rows.get(number)
        if rows is None:
            start = time.perf_counter()
            rows, counted = self._new(pixels, encode)
            self._rows[number] = rows
            self.counts += counted
            self.ms += (time.perf_counter() - start) * 1000
            self._on_step()
        return rows

    def _new(self, pixels: Frame | None, encode: Callable[[], Rows]) -> tuple[Rows, TileCounts]:
        if self._seen is None or pixels is None:
            return encode(), TileCounts(encoded=1)
        found = self._seen.find(pixels)
        if found:
            return found.rows, TileCounts(equal=found.why == "equal", near=found.why == "near")
        rows = encode()
        self._seen.add(pixels, rows)
        return rows, TileCounts(encoded=1)
