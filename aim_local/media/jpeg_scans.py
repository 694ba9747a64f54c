"""The scans of a JPEG: passes over its pixels, of which a progressive one may have thousands of a few bytes each.

Knows markers and segments (ITU-T T.81, annex B). Leaves to others: the coded pixels between them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

EOI, SOS, DRI = 0xD9, 0xDA, 0xDD
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # heads of pictures coded by Huffman's codes: two sequential, one progressive
RESTARTS = frozenset(range(0xD0, 0xD8))
_NEXT = b"\xff\xd8\xff"  # how a picture begins
_ALONE = frozenset({0x01, 0xD8, EOI, *RESTARTS})  # markers without a segment
_STUFFED, _FILL = 0, 0xFF  # behind the first byte of a marker: it is none, and it begins later
_PIECE = 2**22  # bytes that are looked through at a time
_N_COEFFICIENTS = 64


class Scans(NamedTuple):
    """n: of the first picture. is_followed: right behind it another begins, as in a stream of MJPEG.

    is_coarse: it ends before all has come that its pixels are made of.
    """

    n: int
    is_followed: bool = False
    is_coarse: bool = False


class Segment(NamedTuple):
    """kind: of the marker. start: its first byte. body: the bytes behind its length; b"" where there is none."""

    kind: int
    start: int
    end: int
    body: bytes


def segments(data: bytes | mmap.mmap) -> Iterator[Segment]:
    """Of the first picture, as far as they can be followed; the last one is the EOI of a picture that has an end."""
    at = 2
    for start in _markers(data):
        if start < at:  # inside of a segment
            continue
        first, kind, begin = start, data[start + 1], start + 2
        while first > at and data[first - 1] == _FILL:
            first -= 1
        n = 0 if kind in _ALONE else int.from_bytes(data[begin : begin + 2], "big")
        at = begin + n
        yield Segment(kind, first, at, data[begin + 2 : at])
        if kind == EOI:
            return


def _markers(data: bytes | mmap.mmap) -> Iterator[int]:
    """Where all that look like markers stand."""
    for begin in range(0, len(data), _PIECE):
        piece = np.frombuffer(data[begin : begin + _PIECE + 1], np.uint8)
        at = np.flatnonzero(piece[:-1] == _FILL)
        kinds = piece[at + 1]
        yield from (begin + at[(kinds != _STUFFED) & (kinds != _FILL)]).tolist()


def scans_of(path: Path) -> Scans:
    """As far as the segments of the file's first picture can be followed. Raises OSError, ValueError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        n, left = 0, dict[int, set[int]]()
        for segment in segments(data):
            if segment.kind in FRAMES:
                left = {number: set(range(_N_COEFFICIENTS)) for number in segment.body[6::3]}
            elif segment.kind == SOS:
                n += 1
                _take_off(left, segment.body)
            elif segment.kind == EOI:
                is_followed = data[segment.end : segment.end + 3] == _NEXT
                return Scans(n, is_followed, is_coarse=any(left.values()))
        return Scans(n)


def _take_off(left: dict[int, set[int]], head: bytes) -> None:
    """left: of each component, coefficients of which a part is still to come. head: of a scan."""
    if not head or len(head) < 4 + 2 * head[0]:
        return
    first, last, bits = head[1 + 2 * head[0] :][:3]
    if bits & 15:  # lower bits follow in a later scan
        return
    for number in head[1 : 1 + 2 * head[0] : 2]:
        left.get(number, set()).difference_update(range(first, last + 1))
