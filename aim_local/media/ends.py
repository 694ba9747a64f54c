"""Whether a file is cut off: how many bytes are missing at its end, by the sizes that its parts claim.

Knows how parts follow each other in containers. A file that ends between two parts that claim no more tells nothing,
and neither do raw streams, recordings that were written without sizes, and bytes that somebody put behind a film.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from aim_local.media.joined import FLV_HEADER, element_at, is_flv_tag

_MOST_PARTS = 2_000_000
_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"meta", b"uuid", b"sidx", b"mfra"}
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_UNKNOWN = (0, 2**32 - 1)
_KLV = b"\x06\x0e\x2b\x34"
_ASF_FACTS = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the object that tells the size of the file
_TAIL = 2**20  # bytes at the end of a file in which its last page or pack begins
_SYNC, _TS_PACKETS = 0x47, ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and where in it the sync byte is


class _Part(NamedTuple):
    """end: the byte behind it. next: where the following part begins."""

    end: int
    next: int


_Parse = Callable[[BinaryIO, int], "_Part | None"]


def n_missing_bytes(path: Path, formats: Collection[str]) -> int:
    """At least so many, 0 where none are known to be. formats: FFmpeg's names of the file's format. Raises OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for name in formats:
            if name in _PARTS:
                return _overrun(file, size, _PARTS[name])
            if name in _OTHERS:
                return max(0, _OTHERS[name](file, size))
    return 0


def _overrun(file: BinaryIO, size: int, parse: _Parse) -> int:
    at = 0
    for _ in range(_MOST_PARTS):
        part = parse(file, at) if at < size else None
        if part is None or part.next <= at:
            return 0
        if part.end > size:
            return part.end - size
        at = part.next
    return 0


def _read(file: BinaryIO, at: int, n_bytes: int) -> bytes:
    file.seek(at)
    return file.read(n_bytes)


# --- one part behind the other ----------------------------------------------------------------------------------------


def _box(file: BinaryIO, at: int) -> _Part | None:
    head = _read(file, at, 16)
    n = int.from_bytes(head[:4], "big")
    if n == 1 and len(head) == 16:
        n = int.from_bytes(head[8:], "big")
    return _Part(at + n, at + n) if head[4:8] in _BOXES and n >= 8 else None


def _riff(file: BinaryIO, at: int) -> _Part | None:
    head = _read(file, at, 8)
    n = int.from_bytes(head[4:], "little")
    return _Part(at + 8 + n, at + 8 + n) if head[:4] == b"RIFF" and n not in _UNKNOWN else None


def _matroska(file: BinaryIO, at: int) -> _Part | None:
    found = element_at(file, at)
    return _Part(found.end, found.end) if found and found.id in (_EBML, _SEGMENT) else None


def _flv(file: BinaryIO, at: int) -> _Part | None:
    head = _read(file, at, 11)
    if head[:4] == FLV_HEADER:
        end = at + int.from_bytes(head[5:9], "big")
    elif is_flv_tag(head):
        end = at + 11 + int.from_bytes(head[1:4], "big")
    else:
        return None
    return _Part(end, end + 4)  # the size once more, which some leave out at the end


def _mxf(file: BinaryIO, at: int) -> _Part | None:
    head = _read(file, at, 25)
    if head[:4] != _KLV or len(head) < 17:
        return None
    n_length = head[16] & 0x7F if head[16] & 0x80 else 0
    n = int.from_bytes(head[17 : 17 + n_length], "big") if n_length else head[16]
    end = at + 17 + n_length + n
    return _Part(end, end) if n_length <= 8 and 17 + n_length <= len(head) else None


_PARTS: dict[str, _Parse] = {"mov": _box, "avi": _riff, "matroska": _matroska, "flv": _flv, "mxf": _mxf}


# --- the file's end, or what its head says of it ----------------------------------------------------------------------


def _asf(file: BinaryIO, size: int) -> int:
    head = _read(file, 0, 2**16)
    at = head.find(_ASF_FACTS)
    facts = head[at : at + 92]
    if at < 0 or len(facts) < 92 or facts[88] & 1:  # a broadcast, whose size is not known
        return 0
    return int.from_bytes(facts[40:48], "little") - size


def _ogg(file: BinaryIO, size: int) -> int:
    begin = max(0, size - _TAIL)
    tail = _read(file, begin, _TAIL)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 + (n := tail[at + 26] if len(tail) > at + 26 else 0):
        return 0
    return begin + at + 27 + n + sum(tail[at + 27 : at + 27 + n]) - size


def is_transport_stream(head: bytes) -> bool:
    """Whether a file that begins so, or is that short, is MPEG-TS: each of its packets tells."""
    return any(
        len(head) >= 2 * n and all(head[at] == _SYNC for at in range(sync, len(head), n)) for n, sync in _TS_PACKETS
    )


def _transport_stream(file: BinaryIO, size: int) -> int:
    head = _read(file, 0, 5 * 204)
    for n, sync in _TS_PACKETS:
        if len(head) >= 5 * n and all(head[k * n + sync] == _SYNC for k in range(5)):
            rest = _read(file, size - size % n, n)
            return n - len(rest) if rest and rest[sync : sync + 1] in (b"", bytes([_SYNC])) else 0
    return 0


def _program_stream(file: BinaryIO, size: int) -> int:
    begin = max(0, size - _TAIL)
    tail = _read(file, begin, _TAIL)
    at = tail.rfind(b"\0\0\1\xba")
    if at < 0 or len(tail) < at + 14:
        return 0
    at += 14 + (tail[at + 13] & 7) if tail[at + 4] >> 6 == 1 else 12  # MPEG-2, MPEG-1
    while at + 6 <= len(tail) and tail[at : at + 3] == b"\0\0\1" and tail[at + 3] > 0xBA:
        n = int.from_bytes(tail[at + 4 : at + 6], "big")
        if not n:
            return 0
        at += 6 + n
    return begin + at - size


_OTHERS: dict[str, Callable[[BinaryIO, int], int]] = {
    "asf": _asf, "ogg": _ogg, "mpegts": _transport_stream, "mpeg": _program_stream,
}  # fmt: skip
