"""Files that are several files joined end to end, in containers that libav reads only the first of.

Knows: FLV, whose later headers are skipped, and MP4, of which only the first part can be read. Leaves to others: what
the parts hold. Transport streams, MPEG-PS, Matroska and raw streams go on by themselves.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

FLV_HEADER = b"FLV\x01"
_FLV_TAG, _FLV_TRAILER = 11, 4  # bytes before and after a tag's data
_MOST_BOXES = 10_000


def later_flv_headers(path: Path) -> tuple[tuple[int, int], ...]:
    """(first byte, bytes) of every header behind the first. Raises OSError."""
    found, size = list[tuple[int, int]](), path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + _FLV_TAG <= size:
            file.seek(at)
            head = file.read(_FLV_TAG)
            if head[:4] == FLV_HEADER:
                n = int.from_bytes(head[5:9], "big") + _FLV_TRAILER
                found.append((at, n))
            elif head[0] & 0x1F in (8, 9, 18):  # sound, pictures, a script
                n = _FLV_TAG + int.from_bytes(head[1:4], "big") + _FLV_TRAILER
            else:
                break
            at += n
    return tuple(found[1:])


def mp4_parts(path: Path) -> int:
    """How many films stand in a file of boxes (MP4, MOV): a film is one `moov`. Raises OSError."""
    n_films, at, size = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        for _ in range(_MOST_BOXES):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                break
            n_bytes, name = struct.unpack(">I4s", head[:8])
            n_films += name == b"moov"
            if n_bytes == 1 and len(head) == 16:
                n_bytes = int.from_bytes(head[8:], "big")
            if n_bytes < 8 or at + n_bytes >= size:
                break
            at += n_bytes
    return n_films


class Spliced:
    """A file without some ranges of its bytes, as far as libav reads one. cuts: (first byte, bytes), ascending."""

    def __init__(self, path: Path, cuts: tuple[tuple[int, int], ...]) -> None:
        self._file: BinaryIO = path.open("rb")
        self.name = str(path)
        starts = [0, *(at + n for at, n in cuts)]
        ends = [*(at for at, _ in cuts), path.stat().st_size]
        self._spans = list(zip(starts, ends, strict=True))
        self._size, self._at = sum(end - start for start, end in self._spans), 0

    def read(self, n: int) -> bytes:
        left = self._at
        for start, end in self._spans:
            if left < end - start:
                self._file.seek(start + left)
                data = self._file.read(min(n, end - start - left))
                self._at += len(data)
                return data
            left -= end - start
        return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
