"""Where to seek: pure functions over a packet table.

Knows: which key frame makes a frame decodable, and when jumping costs less than decoding on.
Leaves to others: reading the table and decoding.
"""

from __future__ import annotations

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
    """

    pts: Indices
    dts: Indices
    keys: Indices
    shown: Indices


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
        before = segments[-1].last + 1 if segments else 0
        if run.first - before <= seek_cost:
            joined = segments.pop() if segments else Segment(0, 0, ())
            run = Segment(joined.first, max(joined.last, run.last), tuple(sorted(joined.frames + run.frames)))
        segments.append(run)
    return segments


def key_row(table: PacketTable, row: int, earlier: int = 0) -> int:
    """Row of the key frame from which the frame in `row` decodes exactly; 0 where there is none.

    In an open group of pictures, frames stored after a key frame but displayed before it also need the group before.
    """
    k = int(np.searchsorted(table.keys, row, side="right")) - 1
    while k >= 0 and table.pts[table.keys[k]] > table.pts[row]:
        k -= 1
    k -= earlier
    return int(table.keys[k]) if k >= 0 else 0
