"""The scans of a JPEG: passes over its pixels, of which a progressive one may have thousands of a few bytes each.

Knows markers and segments (ITU-T T.81, annex B). Leaves to others: the coded pixels between them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aim_local.errors import MediaError

EOI, SOS, DRI = 0xD9, 0xDA, 0xDD
FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # heads of pictures coded by Huffman's codes: two sequential, one progressive
RESTARTS = frozenset(range(0xD0, 0xD8))
_NEXT = b"\xff\xd8\xff"  # how a picture begins
_ALONE = frozenset({0x01, 0xD8, EOI, *RESTARTS})  # markers without a segment
_STUFFED, _FILL = 0, 0xFF  # behind the first byte of a marker: it is none, and it begins later
_PIECE = 2**18  # bytes that are looked through at a time
_N_COEFFICIENTS = 64
# Pillow goes through the head in Python. Profiles, previews and texts come in segments of 64 KiB: 10,000 are 640 MB
_MOST_IN_HEAD, _MOST_FILL = 10_000, 2**18  # segments, bytes between them
_MOST, _MOST_RESTARTS = 100_000, 4_000_000  # of a picture: other segments; one restart for each unit of the largest


class Scans(NamedTuple):
    """n: of the first picture. is_followed: right behind it another begins, as in a stream of MJPEG.

    is_coarse: it ends before all has come that its pixels are made of.
    """

    n: int
    is_followed: bool = False
    is_coarse: bool = False


class Segment(NamedTuple):
    """kind: of the marker. start: its first byte. body: the bytes behind its length; b"" where there is none.

    n_fill: bytes that begin the marker, and need not be there.
    """

    kind: int
    start: int
    end: int
    body: bytes
    n_fill: int = 0


def segments(data: bytes | mmap.mmap) -> Iterator[Segment]:
    """Of the first picture, as far as they can be followed; the last one is the EOI of a picture that has an end."""
    at = 2
    for start in _markers(data):
        if start < at:  # inside of a segment
            continue
        first, kind, begin = at + len(data[at:start].rstrip(b"\xff")), data[start + 1], start + 2
        n = 0 if kind in _ALONE else int.from_bytes(data[begin : begin + 2], "big")
        at = begin + n
        yield Segment(kind, first, at, data[begin + 2 : at], start - first)
        if kind == EOI:
            return


def _markers(data: bytes | mmap.mmap) -> Iterator[int]:
    """Where all that look like markers stand."""
    for begin in range(0, len(data), _PIECE):
        piece = np.frombuffer(data[begin : begin + _PIECE + 1], np.uint8)
        at = np.flatnonzero(piece[:-1] == _FILL)
        kinds = piece[at + 1]
        yield from (begin + at[(kinds != _STUFFED) & (kinds != _FILL)]).tolist()


def check_head(path: Path) -> None:
    """Raises MediaError for a JPEG with very many segments, or bytes between them, before its pixels; OSError."""
    n = n_fill = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for segment in segments(data):
            if segment.kind in (SOS, EOI):
                return
            n, n_fill = n + 1, n_fill + segment.n_fill
            if n > _MOST_IN_HEAD:
                raise _too_many(path, f"more than {_MOST_IN_HEAD:,} segments before its pixels")
            if n_fill > _MOST_FILL:
                raise _too_many(path, f"more than {_MOST_FILL:,} bytes between its segments")


def _too_many(path: Path, what: str) -> MediaError:
    return MediaError(f"{path}: has {what} (JPEG); save it again without them, or copy or download it again")


def scans_of(path: Path) -> Scans:
    """As far as the segments of the file's first picture can be followed.

    Raises OSError, ValueError, and MediaError for very many.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        n, left = 0, dict[int, set[int]]()
        n_others = n_restarts = 0
        for segment in segments(data):
            n_restarts += segment.kind in RESTARTS
            n_others += segment.kind not in RESTARTS
            if n_others > _MOST or n_restarts > _MOST_RESTARTS:
                raise _too_many(path, f"more than {_MOST:,} segments, or {_MOST_RESTARTS:,} restarts")
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
