"""How much of a PNG's pixels is in the file: Pillow takes what a compressed stream that ends early lacks for zeros.

Knows the chunks of a PNG, those of an animated one included. Other damage is left to Pillow, which tells it.
https://www.w3.org/TR/png-3/#4Concepts.EncodingFilter, #13Decoder-processing
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK, _CHECKSUM = struct.Struct(">I4s"), 4
_HEAD, _CONTROL = struct.Struct(">IIBBxxB"), struct.Struct(">4xII")  # of IHDR and fcTL
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by kind of colour
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # x, y, steps
_PIECE = 1 << 16  # bytes


class _Head(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    interlace: int


class Pixels(NamedTuple):
    """Bytes of one picture's pixels before compression: those in the file, and those that there should be."""

    n_there: int
    n_whole: int

    @property
    def are_short(self) -> bool:
        return self.n_there < self.n_whole


def pixels_of_frames(path: Path, begin: int = 0) -> Iterator[Pixels]:
    """Of every picture in a PNG that begins at this byte of the file, as Pillow numbers them. Raises OSError."""
    with path.open("rb") as file:
        head, size, stream = None, (0, 0), None
        for kind, n_bytes in _chunks(file, begin + len(SIGNATURE)):
            if kind == b"IHDR" and n_bytes == _HEAD.size:
                head = _Head._make(_HEAD.unpack(file.read(n_bytes)))
                size = head.width, head.height
            elif kind == b"fcTL" and n_bytes >= _CONTROL.size:
                if stream:
                    yield stream.pixels
                size, stream = _CONTROL.unpack(file.read(_CONTROL.size)), None
            elif head and kind in (b"IDAT", b"fdAT"):
                stream = stream or _Stream(_n_whole(head, *size))
                skipped = file.read(4 if kind == b"fdAT" else 0)  # the number of the chunk
                stream.add(file, n_bytes - len(skipped))
        if stream:
            yield stream.pixels


def _chunks(file: BinaryIO, at: int) -> Iterator[tuple[bytes, int]]:
    """(kind, bytes that are there) of each, with the file standing at its first byte."""
    n_file = os.fstat(file.fileno()).st_size
    while True:
        file.seek(at)
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            return
        n_bytes, kind = _CHUNK.unpack(head)
        yield kind, min(n_bytes, n_file - at - _CHUNK.size)
        if kind == b"IEND":
            return
        at += _CHUNK.size + n_bytes + _CHECKSUM


def _n_whole(head: _Head, width: int, height: int) -> int:
    """Bytes of a picture of this size; 0 for what no PNG can be, which Pillow tells."""
    n_bits = head.depth * _SAMPLES.get(head.colour, 0)
    if not n_bits or width > head.width or height > head.height:
        return 0
    if not head.interlace:
        return _n_rows(width, height, n_bits)
    return sum(_n_rows(-(-(width - x) // dx), -(-(height - y) // dy), n_bits) for x, y, dx, dy in _PASSES)


def _n_rows(width: int, height: int, n_bits: int) -> int:
    """Bytes of rows, each behind its kind of filter."""
    return height * (1 + (width * n_bits + 7) // 8) if width > 0 and height > 0 else 0


class _Stream:
    """Inflates one picture, as far as is needed, and keeps nothing of it."""

    def __init__(self, n_whole: int) -> None:
        self._n, self._n_whole, self._zlib = 0, n_whole, zlib.decompressobj()

    @property
    def pixels(self) -> Pixels:
        return Pixels(min(self._n, self._n_whole), self._n_whole)

    def add(self, file: BinaryIO, n_bytes: int) -> None:
        while n_bytes > 0 and self._n < self._n_whole and (data := file.read(min(n_bytes, _PIECE))):
            n_bytes -= len(data)
            self._inflate(data)

    def _inflate(self, data: bytes) -> None:
        try:
            while self._n < self._n_whole:
                found = self._zlib.decompress(data, _PIECE)
                self._n, data = self._n + len(found), self._zlib.unconsumed_tail
                if not found and not data:
                    return
        except zlib.error:
            self._n = self._n_whole  # damage that Pillow tells
