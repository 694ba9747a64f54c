"""Texts in a PNG that are longer than Pillow reads: where they are, so that they can be left out.

Programs put whole histories of editing and workflows there, compressed; Pillow gives up the picture at a text of more
than a megabyte. Knows the chunks of a PNG. Damage is left to Pillow, which tells it.
https://www.w3.org/TR/png-3/#11textinfo
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from aim_local.errors import MediaError
from aim_local.media.joined import Cuts

_HEAD, _SIGNATURE = struct.Struct(">I4s"), 8
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_LONG = 1 << 20  # bytes of a text: PIL.PngImagePlugin.MAX_TEXT_CHUNK
_ALL = 32 << 20  # of all that are left in; Pillow takes twice as many
_MOST = 1000  # that are left out
# Pillow goes through chunks in Python; as many small ones as the frames of the longest animation take, and more
_SMALL, _MOST_SMALL = 1 << 10, 50_000


def long_texts(file: BinaryIO, n_bytes: int) -> Cuts:
    """Of an open PNG of n_bytes: (first byte, bytes) of the chunks that hold them.

    Raises MediaError for very many, and for very many small chunks of any kind.
    """
    at, left, n_small, found = _SIGNATURE, _ALL, 0, list[tuple[int, int]]()
    while at + _HEAD.size <= n_bytes:
        file.seek(at)
        length, kind = _HEAD.unpack(file.read(_HEAD.size))
        end = at + _HEAD.size + length + 4  # a checksum
        if kind == b"IEND" or end > n_bytes:
            break
        if kind in _TEXTS:
            size = length if length > _LONG else _text_size(kind, file.read(length))
            if size > min(_LONG, left):
                found.append((at, end - at))
            else:
                left -= size
        n_small += length < _SMALL
        if n_small > _MOST_SMALL:
            told = f"{file.name}: has more than {_MOST_SMALL:,} chunks of less than {_SMALL:,} bytes (PNG)"
            raise MediaError(f"{told}; save it again without them, or copy or download it again")
        at = end
    if len(found) > _MOST:
        raise MediaError(f"{file.name}: holds {len(found)} texts of more than 1 MiB; save it again without them")
    return tuple(found)


def _text_size(kind: bytes, body: bytes) -> int:
    """Bytes of a chunk's text, at most one more than are read."""
    start = body.find(b"\0") + 2  # keyword, how it is compressed
    if kind == b"iTXt":
        if body[start - 1 : start] == b"\0":  # it is not
            return len(body)
        start = body.find(b"\0", body.find(b"\0", start + 1) + 1) + 1  # language, keyword in it
    if kind == b"tEXt":
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(body[start:], _LONG + 1))
    except zlib.error:
        return len(body)
