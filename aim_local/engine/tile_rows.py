"""Rows of an item's tiles, and where each came from: what the families ask when they encode (base.TileRows).

Knows what is known already, and hands on what is new to the store. Which tiles may share rows is models/reuse.py's
business.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from ..models.base import Frame
from ..models.pieces import Rows
from ..models.reuse import Seen
from ..store.encoded import Frames


@dataclass(frozen=True)
class TileCounts:
    """Tiles (frames of videos, tiles of pictures) by where their rows came from.

    encoded: the tower's runs. equal: pixels equal to those of an encoded one. near: those that differ by noise only.
    cached: from the store on disk. ahead: of all these, those that were there before the question.
    """

    encoded: int = 0
    equal: int = 0
    near: int = 0
    cached: int = 0
    ahead: int = 0

    def __add__(self, other: TileCounts) -> TileCounts:
        return TileCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def all(self) -> int:
        return self.encoded + self.equal + self.near + self.cached


class Keeper(Protocol):
    """Where new rows are kept for the next time (store.encoded.EntryWriter)."""

    problem: str

    def add(self, tile: int, rows: Rows) -> None: ...

    def finish(self, tiles: Sequence[int], frames: Frames | None, facts: Mapping[str, Any]) -> None: ...

    def forget(self) -> None: ...

    def drop(self) -> None: ...


def _nothing() -> None:
    pass


class ItemRows:
    """Rows by number of the tile.

    seen: None encodes every tile. stored: rows that were kept, in order. keeper: None keeps nothing. once: they serve
    one prompt, and are forgotten when its visual tokens are made of them; a long clip has hundreds of MB.
    """

    def __init__(
        self, seen: Seen | None, stored: Sequence[Rows] = (), keeper: Keeper | None = None, *, once: bool = False
    ) -> None:
        self._seen, self._stored, self._keeper, self._once = seen, stored, keeper, once
        self._rows: dict[int, Rows] = {}
        self._numbers: set[int] = set()
        self._planned: Sequence[int] = ()
        self.counts = TileCounts()
        self.ms, self.ahead_ms = 0.0, 0.0  # in the encoder: for the question, and before it
        self.on_step: Callable[[], None] = _nothing  # called after every tile whose rows were not here yet

    @classmethod
    def known(cls, rows: Sequence[Rows], counts: TileCounts, ms: float) -> ItemRows:
        """Rows of an item's first tiles, made before the question. counts, ms: what that took."""
        found = cls(None)
        found._rows, found._numbers = dict(enumerate(rows)), set(range(len(rows)))
        found.counts, found.ms = counts, ms
        found.begin_question()
        return found

    @property
    def all(self) -> list[Rows]:
        """Rows of the tiles that were asked for, in the order of their numbers."""
        return [self._rows[number] for number in sorted(self._rows)]

    def __call__(
        self, number: int, pixels: Frame | None, encode: Callable[[], Rows], /, *, shared: bool = True
    ) -> Rows:
        if not shared:
            return self._timed(lambda: (encode(), TileCounts(encoded=1)))
        number = self._planned[number] if self._planned else number
        rows = self._rows.get(number)
        if rows is None:
            rows = self._timed(lambda: self._new(number, pixels, encode))
            self._rows[number] = rows
            self._numbers.add(number)
        return rows

    def _timed(self, get: Callable[[], tuple[Rows, TileCounts]]) -> Rows:
        """What `get` gives, its time and counts noted, and the step told."""
        start = time.perf_counter()
        rows, counted = get()
        self.counts += counted
        self.ms += (time.perf_counter() - start) * 1000
        self.on_step()
        return rows

    def _new(self, number: int, pixels: Frame | None, encode: Callable[[], Rows]) -> tuple[Rows, TileCounts]:
        if number < len(self._stored):
            return self._stored[number], TileCounts(cached=1)
        found = self._seen.find(pixels) if self._seen and pixels is not None else None
        rows = found.rows if found else encode()
        if self._keeper:
            self._keeper.add(number, rows)
        if found:
            return rows, TileCounts(equal=found.why == "equal", near=found.why == "near")
        if self._seen and pixels is not None:
            self._seen.add(pixels, rows)
        return rows, TileCounts(encoded=1)

    def number_as(self, planned: Sequence[int]) -> None:
        """From now on tile i is the one that was number planned[i]: some frames could not be decoded after all."""
        self._planned = list(planned)

    def begin_question(self) -> None:
        """What is here now was there before the question, whose time it is not."""
        self.counts, self.ahead_ms, self.ms = replace(self.counts, ahead=self.counts.all), self.ahead_ms + self.ms, 0.0

    def used(self) -> int:
        """Visual tokens have been made of all rows. Returns the bytes of those that were forgotten."""
        if not self._once:
            return 0
        n_bytes = sum(rows.nbytes for rows in self._rows.values())
        self._rows, self._stored = {}, ()
        if self._seen:
            self._seen.forget()
        if self._keeper:
            self._keeper.forget()
        return n_bytes

    def quiet(self) -> None:
        """Nobody is told of further tiles: the question that asked has ended."""
        self.on_step = _nothing

    def keep(self, frames: Frames | None, facts: Mapping[str, Any]) -> str:
        """All tiles are here: they are kept for the next time. Returns why they are not, "" where all is well."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return ""
        if not self._planned and not self._numbers:  # none of its rows was asked for
            keeper.drop()
            return ""
        keeper.finish(self._planned or sorted(self._numbers), frames, facts)
        return keeper.problem

    def close(self) -> None:
        """An entry that is not finished goes. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper:
            keeper.drop()
