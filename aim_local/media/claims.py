"""What a file claims to hold, read without any decoder: what would cost a decoder its memory, or hours, is refused.

A few bytes of an MP4 file may announce millions of frames, for which FFmpeg makes room as it opens the file; a GIF may
hold millions of frames of a few bytes. Knows the skeletons of these formats. Whatever else is wrong with a file, the
decoders will tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from aim_local.errors import MediaError

MOST_SAMPLES = 10_000_000  # of all tracks: a day of film at 60 frames a second, with its sound
_MOST_TRACKS = 1000  # FFmpeg's max_streams, beyond which it says that there is no memory
_MOST_BOXES = 2_000_000
_MOST_LEVELS = 12
# ISO/IEC 14496-12 and QuickTime: boxes that hold boxes
_CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"mvex", b"moof", b"traf", b"dinf"}
)
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4, b"stco": 4, b"co64": 4}  # where in a box its number of entries stands
_TABLES = frozenset({*_COUNTS, b"hdlr", b"stts", b"ctts", b"stsc"})
_MOST_BYTES = 64 * 2**20  # of a table


def check_index(path: Path) -> None:
    """Of a video. Raises MediaError for an index that claims what cannot be; what cannot be read is told elsewhere."""
    try:
        with path.open("rb") as file:
            # FFmpeg looks for an MP4's boxes behind unknown ones: in a file of another format none are found
            _check_mp4(file, path, path.stat().st_size)
    except OSError:
        return


# --- MP4 and QuickTime -----------------------------------------------------------------------------------------------


Runs = NDArray[np.int64]
Size = tuple[int, int]  # height, width


@dataclass
class _Track:
    """What a track claims, as its boxes come. n_samples: frames, or pieces of sound. n_timed: by tables of times."""

    is_sound: bool = False
    n_samples: int = 0
    n_timed: int = 0
    n_chunks: int = 0
    is_even: bool = False  # one time for all: samples of uncompressed sound, which FFmpeg reads in large pieces
    chunks: Runs | None = None  # [n, 3]: first chunk from 1 on, samples in each of them, -

    def add(self, kind: bytes, body: bytes) -> None:
        if kind in _COUNTS:
            n = int.from_bytes(body[_COUNTS[kind] : _COUNTS[kind] + 4], "big")
            if kind in (b"stco", b"co64"):
                self.n_chunks = max(self.n_chunks, n)
            else:
                self.n_samples += n
        elif kind == b"hdlr":
            self.is_sound = (self.is_sound or body[8:12] == b"soun") and body[8:12] != b"vide"
        elif kind in (b"stts", b"ctts"):
            runs = _table(body, 2)
            self.n_timed = max(self.n_timed, int(runs[:, 0].sum()))
            self.is_even = self.is_even or (kind == b"stts" and len(runs) == 1 and runs[0, 1] == 1)
        elif kind == b"stsc":
            self.chunks = _table(body, 3)

    @property
    def n_index(self) -> int:
        """Entries that FFmpeg makes room for."""
        return 0 if self.is_sound and self.is_even else max(self.n_samples, self.n_timed)

    @property
    def n_in_chunks(self) -> int:
        if self.chunks is None or not len(self.chunks):
            return 0
        firsts = np.minimum(np.append(self.chunks[:, 0], self.n_chunks + 1), self.n_chunks + 1)
        return int((np.maximum(np.diff(firsts), 0).astype(np.float64) * self.chunks[:, 1]).sum())


def _table(body: bytes, n_columns: int) -> Runs:
    entries = np.frombuffer(body[8 : 8 + (len(body) - 8) // (4 * n_columns) * (4 * n_columns)], ">u4")
    return entries.astype(np.int64).reshape(-1, n_columns)


def _check_mp4(file: BinaryIO, path: Path, n_file: int) -> None:
    tracks = [_Track()]
    for kind, start, end in _boxes(file, n_file):
        if kind == b"cmov":
            raise _refused(path, "has a compressed index (QuickTime's cmov); save it anew")
        if kind == b"trak":
            tracks.append(_Track())
            if len(tracks) - 1 > _MOST_TRACKS:
                raise _refused(path, f"has more than {_MOST_TRACKS:,} tracks")
        if kind in _TABLES:
            if end - start > _MOST_BYTES:
                raise _refused(
                    path, f"has an index of {(end - start) >> 20:,} MiB; that is more than a film of a day needs"
                )
            file.seek(start)
            tracks[-1].add(kind, file.read(end - start))
    claimed, in_chunks = sum(track.n_index for track in tracks), max(track.n_in_chunks for track in tracks)
    if claimed > min(n_file, MOST_SAMPLES) or in_chunks > n_file:  # each takes a byte at least
        most = max(claimed, in_chunks)
        raise _refused(path, f"claims {most:,} frames or pieces of sound in {n_file:,} bytes, which cannot be")


def _boxes(file: BinaryIO, n_file: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte behind the head, end) of every box, in the order of the file; ends where none can be read."""
    ends, at, n = [n_file], 0, 0
    while ends:
        if at + 8 > ends[-1]:
            at = max(at, ends.pop())
            continue
        file.seek(at)
        head = file.read(16)
        n_box, kind, n_head = int.from_bytes(head[:4], "big"), head[4:8], 8
        if n_box == 1 and len(head) == 16:
            n_box, n_head = int.from_bytes(head[8:], "big"), 16
        end = min(ends[-1], at + n_box) if n_box else ends[-1]
        n += 1
        if end < at + n_head or n > _MOST_BOXES:
            return
        yield kind, at + n_head, end
        if kind in _CONTAINERS and len(ends) < _MOST_LEVELS:
            ends.append(end)
            at += n_head
        else:
            at = end


def _refused(path: Path, what: str) -> MediaError:
    return MediaError(f"{path}: {what}; it is damaged: copy or download it again, or re-encode it")


# --- GIF -------------------------------------------------------------------------------------------------------------


def gif_frames(path: Path) -> Iterator[Size]:
    """For each frame, (height, width) of the screen so far: a frame that is larger makes it larger. Raises OSError."""
    with path.open("rb") as file:
        file.seek(6)
        screen = file.read(7)
        width, height = int.from_bytes(screen[:2], "little"), int.from_bytes(screen[2:4], "little")
        _skip_colours(file, screen[4:5])
        while kind := file.read(1):
            if kind == b"!":
                file.seek(1, 1)
            elif kind == b",":
                place = file.read(9)
                left, top, w, h = (int.from_bytes(place[i : i + 2], "little") for i in (0, 2, 4, 6))
                width, height = max(width, left + w), max(height, top + h)
                yield height, width
                _skip_colours(file, place[8:9])
                file.seek(1, 1)  # size of the codes
            else:
                return
            while (n := file.read(1)) and n != b"\0":
                file.seek(n[0], 1)


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << (1 + (flags[0] & 7)), 1)
