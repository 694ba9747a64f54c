"""Where to seek: pure functions over a packet table.

Knows: which key frame makes a frame decodable, and when jumping costs less than decoding on.
Leaves to others: reading the table and decoding.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aim_local.media.types import Indices

# a jump empties the decoder: refilling its threads and reorder buffer costs about so many packets
SEEK_COST = 12


@dataclass(frozen=True, eq=False)
class PacketTable:
    """One row per packet of the video stream, in file order.

    pts, dts: int64 [P], in units of the stream's time base; pts are distinct
    keys:     int64 [K], rows of key frames, ascending
    shown:    int64 [n_frames], row of each displayed frame, in display order
    parts:    rows at which the decoder begins anew, ascending: the first one that can be decoded, and those where
              another clip goes on (clock.py)
    by_count: the file's stamps cannot be searched for; pts and dts are numbers of our own, and jumping is reading on
              without decoding
    """

    pts: Indices
    dts: Indices
    keys: Indices
    shown: Indices
    parts: tuple[int, ...] = (0,)
    by_count: bool = False

    def part(self, row: int) -> int:
        """The row at which the part of a row begins."""
        return self.parts[max(0, bisect_right(self.parts, row) - 1)]


@dataclass(frozen=True)
class Segment:
    """Decode the packets first..last (rows of the table, both included) to get `frames` (display indices)."""

    first: int
    last: int
    frames: tuple[int, ...]


def plan_segments(
    table: PacketTable, frames: Sequence[int], seek_cost: int = SEEK_COST, earlier: int = 0
) -> list[Segment]:
    """The runs of packets to decode for `frames`, ascending; between runs the reader jumps.

    Frames that share a key frame share a run; a run is joined to the one before where decoding the packets between
    costs no more than a jump. earlier: start so many key frames sooner, for files whose key frames are unclean starts.
    """
    runs: dict[int, list[int]] = {}
    for frame in frames:
        runs.setdefault(key_row(table, int(table.shown[frame]), earlier), []).append(int(frame))
    segments: list[Segment] = []
    for first in sorted(runs):
        run = Segment(first, max(int(table.shown[f]) for f in runs[first]), tuple(sorted(runs[first])))
        begin = table.part(run.first)
        joins = bool(segments) and segments[-1].first >= begin
        before = segments[-1].last + 1 if joins else begin
        if run.first - before <= seek_cost:
            joined = segments.pop() if joins else Segment(begin, begin, ())
            run = Segment(joined.first, max(joined.last, run.last), tuple(sorted(joined.frames + run.frames)))
        segments.append(run)
    return segments


def key_row(table: PacketTable, row: int, earlier: int = 0) -> int:
    """Row of the key frame from which the frame in `row` decodes exactly; where its part begins if there is none.

    In an open group of pictures, frames stored after a key frame but displayed before it also need the group before.
    """
    begin = table.part(row)
    k = int(np.searchsorted(table.keys, row, side="right")) - 1
    while k >= 0 and table.keys[k] >= begin and table.pts[table.keys[k]] > table.pts[row]:
        k -= 1
    k -= earlier
    return max(begin, int(table.keys[k])) if k >= 0 else begin
