"""Files that are several files joined end to end, in containers that libav reads only the first of.

Knows: FLV and Matroska, of whose later parts all but the pictures is skipped, and MP4, ASF, IVF, NUT and WTV, of which
only the first part can be read. Leaves to others: what the parts hold. Transport streams, MPEG-PS, AVI and raw streams
go on by themselves.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from typing_extensions import Buffer

FLV_HEADER = b"FLV\x01"
_FLV_TAG, _FLV_TRAILER = 11, 4  # bytes before and after a tag's data
_FLV_KINDS, _FLV_FILTER = frozenset({8, 9, 18}), 0x20  # sound, pictures, a script; the one bit beside that may be set
_ID3 = (b"ID3", b"TAG")  # of which FFmpeg makes a part of the film
_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_TRACKS, _TRACK_TYPE, _PICTURES = b"\x16\x54\xae\x6b", b"\x83", b"\x01"
_CODING = (b"\xd7", b"\x86", b"\x63\xa2", b"\x6d\x80")  # a track's number, codec, set-up of its decoder, encodings
_SET_UP_ALONG = frozenset({b"V_VP8", b"V_VP9", b"V_AV1", b"V_MPEG1", b"V_MPEG2"})  # by their pictures themselves
_MOST_VALUE = 2**20  # bytes of one that are looked at
_MOST_BOXES = 10_000
_HEAD, _MOST_FILMS = 16, 1000  # bytes that only the beginning of a file has; films that are counted

Cuts = tuple[tuple[int, int], ...]
_Track = tuple[bytes, ...]


class Later(NamedTuple):
    """n_other: parts that are left out, as their pictures are coded in another way than those of the first."""

    cuts: Cuts = ()
    n_other: int = 0


def is_flv_tag(head: bytes) -> bool:
    """Whether a part of an FLV begins so, and not what programs put behind it ("ID3")."""
    return bool(head) and head[0] & ~_FLV_FILTER in _FLV_KINDS


def later_flv_headers(path: Path) -> Cuts:
    """(first byte, bytes) of every header behind the first, and of ID3 behind the film. Raises OSError."""
    found, size = list[tuple[int, int]](), path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + _FLV_TAG <= size:
            file.seek(at)
            head = file.read(_FLV_TAG)
            if head[:4] == FLV_HEADER:
                n = int.from_bytes(head[5:9], "big") + _FLV_TRAILER
                found.append((at, n))
            elif is_flv_tag(head):
                n = _FLV_TAG + int.from_bytes(head[1:4], "big") + _FLV_TRAILER
            else:
                if head.startswith(_ID3):
                    found.append((at, size - at))
                break
            at += n
    return tuple(found[1:])


def later_matroska_heads(path: Path) -> Later:
    """(first byte, bytes) of all that stands between the clusters of the first segment and those of later ones.

    Segments whose tracks are not those of the first are cut out as a whole: the first one's decoder would make noise of
    them. Of segments that do not tell their size, none. Raises OSError.
    """
    cuts, size = list[tuple[int, int]](), path.stat().st_size
    first, n_other = frozenset[_Track](), 0
    with path.open("rb") as file:
        at, begin = 0, -1  # begin: of what is cut next, behind the last cluster
        while (element := element_at(file, at)) and element.end <= size:
            if element.id == _SEGMENT:
                clusters = _clusters(file, element)
                if not clusters:
                    break
                tracks = _tracks(file, element)
                if begin < 0:
                    # of the first segment libav reads what stands behind its clusters, too
                    first, begin = tracks, element.end
                elif tracks == first:
                    cuts.append((begin, clusters[0] - begin))
                    begin = clusters[1]
                else:
                    n_other += 1
            at = element.end
    if n_other and begin < at:
        cuts.append((begin, at - begin))
    return Later(tuple(cuts), n_other)


class Element(NamedTuple):
    """An element of EBML. data: its first byte behind the head; end: the byte behind it."""

    id: bytes
    data: int
    end: int


def element_at(file: BinaryIO, at: int) -> Element | None:
    """The one that begins at byte `at`; None where there is none, or one of unknown size."""
    file.seek(at)
    head = file.read(12)
    if len(head) < 5 or not head[0]:
        return None
    n_id = 9 - head[0].bit_length()
    first = head[n_id] if n_id < len(head) else 0
    n_size = 9 - first.bit_length()
    if n_id > 4 or not first or len(head) < n_id + n_size:
        return None
    value = int.from_bytes(head[n_id : n_id + n_size], "big") - (1 << 7 * n_size)
    if value == (1 << 7 * n_size) - 1:
        return None
    data = at + n_id + n_size
    return Element(head[:n_id], data, data + value)


def _children(file: BinaryIO, parent: Element) -> Iterator[Element]:
    """As far as they can be followed."""
    at = parent.data
    while at < parent.end and (child := element_at(file, at)) and child.end <= parent.end:
        yield child
        at = child.end


def _tracks(file: BinaryIO, segment: Element) -> frozenset[_Track]:
    """How the pictures of a segment are coded: of each track the values that a decoder is set up with."""
    entries = (
        entry for tracks in _children(file, segment) if tracks.id == _TRACKS for entry in _children(file, tracks)
    )
    found = ({e.id: e for e in _children(file, entry)} for entry in entries)
    return frozenset(_coding(file, track) for track in found if _value(file, track.get(_TRACK_TYPE)) == _PICTURES)


def _coding(file: BinaryIO, track: Mapping[bytes, Element]) -> _Track:
    number, codec, setup, encodings = (_value(file, track.get(name)) for name in _CODING)
    return number, codec, b"" if codec in _SET_UP_ALONG else setup, encodings


def _value(file: BinaryIO, element: Element | None) -> bytes:
    if element is None:
        return b""
    file.seek(element.data)
    return file.read(min(element.end - element.data, _MOST_VALUE))


def _clusters(file: BinaryIO, segment: Element) -> tuple[int, int] | None:
    """(first byte, byte behind) of a segment's clusters; None where they cannot be told."""
    first, end, at = -1, -1, segment.data
    while at < segment.end:
        child = element_at(file, at)
        if child is None:
            return None
        if child.id == _CLUSTER:
            first, end = (at if first < 0 else first), child.end
        at = child.end
    return (first, end) if first >= 0 else None


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


def same_heads(path: Path) -> int:
    """How often the first bytes of a file stand in it: in ASF, IVF, NUT and WTV, as many films. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head, n, at = data[:_HEAD], 0, 0
        while at >= 0 and n < _MOST_FILMS:
            n, at = n + 1, data.find(head, at + _HEAD)
        return n


class Spliced(io.RawIOBase):
    """A file without some ranges of its bytes, to be read. cuts: (first byte, bytes), ascending."""

    def __init__(self, path: Path, cuts: Cuts) -> None:
        self._file: BinaryIO = path.open("rb")
        self.name = str(path)
        starts = [0, *(at + n for at, n in cuts)]
        ends = [*(at for at, _ in cuts), path.stat().st_size]
        self._spans = list(zip(starts, ends, strict=True))
        self._size, self._at = sum(end - start for start, end in self._spans), 0

    def readinto(self, room: Buffer) -> int:
        """What comes next of the range that it stands in; 0 at the end."""
        left, view = self._at, memoryview(room).cast("B")
        for start, end in self._spans:
            if left < end - start:
                self._file.seek(start + left)
                data = self._file.read(min(len(view), end - start - left))
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            left -= end - start
        return 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()
