"""How many passes over its pixels a JPEG asks for: a progressive one may have thousands of scans of a few bytes each.

Knows markers and segments (ITU-T T.81, annex B). Leaves to others: everything inside them.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import NamedTuple

_SOS, _EOI = 0xDA, 0xD9
_NEXT = b"\xff\xd8\xff"  # how a picture begins
_ALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})  # markers without a segment
# behind a scan's head: the next marker, where stuffed bytes and restarts are none
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


class Scans(NamedTuple):
    """n: of the first picture. is_followed: right behind it another begins, as in a stream of MJPEG."""

    n: int
    is_followed: bool = False


def scans_of(path: Path) -> Scans:
    """As far as the segments of the file's first picture can be followed. Raises OSError, ValueError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        n, at = 0, 2
        while found := _MARKER.search(data, at):
            kind, at = data[found.start() + 1], found.end()
            if kind == _EOI:
                return Scans(n, data[at : at + 3] == _NEXT)
            if kind in _ALONE:
                continue
            n += kind == _SOS
            at += int.from_bytes(data[at : at + 2], "big")
        return Scans(n)
