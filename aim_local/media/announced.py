"""What a clip's head says that the file holds, beside what came of it: is it cut off?

Knows which containers say what, and that some say more than is true. Leaves to others: reading packets, and what the
file's own parts tell (ends.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from aim_local.media.ends import n_missing_bytes

# containers whose heads say how many frames there are, and how long all that they hold lasts
_COUNTED, _LASTING = frozenset({"mov", "ivf"}), frozenset({"matroska", "flv", "mxf", "rm"})
_UNKNOWN = (2**32 - 1, 2**31 - 1)  # of an IVF that was written into a pipe, or by programs that do not count
_ROUNDED_S = 0.1  # seconds by which what a head says and what comes may differ
_LONGER, _LONGER_S = 1.1, 1.0  # by which sound may be longer than the pictures are


@dataclass(frozen=True)
class Announced:
    """What a file's head says. formats: FFmpeg's names of it. n_frames, seconds: 0 where it says nothing certain.

    begin: seconds at which its clock starts, which some programs count as part of the duration.
    """

    formats: frozenset[str]
    n_frames: int
    seconds: float
    begin: float


class Came(NamedTuple):
    """n_packets: of the video. is_torn: a part of the last one is missing. is_broken: reading ended with an error."""

    n_packets: int
    is_torn: bool
    is_broken: bool


def announced_by(container: InputContainer, stream: VideoStream, formats: Collection[str]) -> Announced:
    """Of an open file. formats: FFmpeg's names of it."""
    names = frozenset(formats)
    n_frames = stream.frames if names & _COUNTED and stream.frames not in _UNKNOWN else 0
    if "mov" in names:  # frames that edits leave out are not read
        n_frames = min(n_frames, len(stream.index_entries) or n_frames)
    seconds = (container.duration or 0) / av.time_base if names & _LASTING else 0.0
    return Announced(names, n_frames, seconds, max(0, container.start_time or 0) / av.time_base)


def cut_notes(path: Path, announced: Announced, came: Came, seconds: float) -> list[str]:
    """Where a file is cut off. seconds: at which its pictures end. Raises OSError."""
    if announced.n_frames > came.n_packets:
        return [f"the file is cut off: {came.n_packets} of {announced.n_frames} frames are there"]
    notes, n_missing = list[str](), n_missing_bytes(path, announced.formats)
    if n_missing:
        bytes_are = "1 byte is" if n_missing == 1 else f"{n_missing:,} bytes are"
        notes.append(f"the file is cut off: at least {bytes_are} missing at its end")
    elif came.is_torn and came.n_packets <= (announced.n_frames or came.n_packets):  # more: other bytes stand behind
        notes.append("the file is cut off inside its last frame")
    is_cut = bool(notes) or came.is_broken
    least = announced.begin + (seconds + _ROUNDED_S if is_cut else _LONGER * seconds + _LONGER_S)
    if announced.seconds > least:
        notes.append(f"the file announces {announced.seconds:.1f} s, but its pictures end at {seconds:.1f} s")
    return notes
