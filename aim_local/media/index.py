"""A video file as a table of frames: when each is shown and which packets hold it, without decoding them all.

Knows: PyAV containers and streams. Leaves to others: which frames are wanted and how they are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from aim_local.config import MAX_PIXELS
from aim_local.errors import MediaError
from aim_local.media import interlace
from aim_local.media.announced import Came, announced_by, cut_notes
from aim_local.media.budget import check_decoded
from aim_local.media.clock import Clock, clock_notes, clock_of_frames, clock_of_packets
from aim_local.media.container import Damage, all_frames, decode, open_stream, packets_of
from aim_local.media.ends import n_missing_bytes
from aim_local.media.interlace import Fields, fields_of
from aim_local.media.joined import Cuts, Later, later_flv_headers, later_matroska_heads, mp4_parts, same_heads
from aim_local.media.orientation import Orientation, orientation_of
from aim_local.media.seek import PacketTable
from aim_local.media.types import Indices, Seconds, VideoInfo
from aim_local.native.room import check_room

# containers whose packets carry true display times; avi, mpeg and raw streams make them up or leave them out
_TIMED_CONTAINERS = frozenset({"mov", "matroska", "webm", "mpegts", "flv"})
_ONE_HEAD = frozenset({"asf", "ivf", "nut", "wtv"})  # libav reads the first of several films
_WRAPPING = frozenset({"mpegts", "mpeg"})  # their clocks have 33 bits
# codecs whose decoders give no frame before one that is whole; others make up what a cut took away
_CLEAN_STARTERS = frozenset({"h264", "hevc", "vp9", "av1", "vvc"})
_NEAR_HOLE = 4  # packets between a hole and the clip behind it: the clip's sound, and rests of the one before
_FLV_REST = 64  # bytes that may stand behind the last packet of a file that ends there
_NEVER = -(2**62)  # stands in for a stamp that a packet without a picture lacks
_NO_LATER = Later()
_HDR_CURVES = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, eq=False)
class Clip:
    """A probed video file. table: None where packets do not tell the frames, which are then counted while decoding.

    max_pixels: as it was opened with; it is decoded within the same bound. begin: the packet that decoding starts with,
    where there is no table. cuts: bytes to leave out, see joined.py.
    fields: where it is interlaced as far as its first frame tells.
    """

    path: Path
    info: VideoInfo
    table: PacketTable | None
    max_pixels: int = MAX_PIXELS
    begin: int = 0
    cuts: Cuts = ()
    fields: Fields | None = None


@dataclass(frozen=True)
class _Start:
    """Where a decoder began anew. row: its first packet; key: the first key frame, or row; out: what it gave first."""

    row: int
    key: int
    out: int


@dataclass
class _Scan:
    # one entry per packet, in file order
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    first: VideoFrame | None = None
    starts: list[_Start] = field(default_factory=list)
    end: int = 0  # byte behind the last packet, as far as known
    goes_back: bool = False  # packets lie in the file in another order than they come
    is_torn: bool = False  # a part of the last packet is missing
    damage: Damage = field(default_factory=Damage)

    @property
    def came(self) -> Came:
        return Came(len(self.pts), self.is_torn, self.damage.cut)


@dataclass(frozen=True, eq=False)
class _Times:
    seconds: Seconds  # [n_frames]
    last_duration: float
    table: PacketTable | None
    warnings: tuple[str, ...] = ()
    begin: int = 0


def index_video(path: Path, max_pixels: int = MAX_PIXELS) -> Clip:
    """Probe a file: one pass over its packets, one decoded frame (containers without display times: all decoded).

    Raises MediaError for a file that is no video, has no pictures, or none that can be decoded, MediaBudgetError for
    one that takes more than max_pixels allow (budget.py).
    """
    clip, end = _indexed(path, max_pixels)
    later = Later()
    if clip.info.container == "flv" and end < path.stat().st_size:
        later = Later(later_flv_headers(path))
    elif "matroska" in clip.info.container:
        later = later_matroska_heads(path)
    return _indexed(path, max_pixels, later)[0] if later.cuts else clip


def _indexed(path: Path, max_pixels: int, later: Later = _NO_LATER) -> tuple[Clip, int]:
    """The clip, and where in the file its last packet ends; 0 where a part of that is missing."""
    cuts = later.cuts
    with open_stream(path, max_pixels, cuts) as (container, stream):
        names = set(container.format.name.split(","))
        scan = _scan_packets(container, stream)
        if not any(scan.shown):
            _refuse_empty(path, names, stream.frames, len(stream.index_entries), scan)
        if scan.first is None:
            check_room()  # a decoder that gets no memory calls its pictures damaged
            raise MediaError(
                f"{path}: none of its {len(scan.pts)} pictures could be decoded (codec {stream.codec_context.name});"
                " the file is damaged: copy or download it again, or re-encode it"
            )
        # a stream's fields are read here: they are gone once the container is closed
        ticking = _ticking(stream, names)
        times = _times_from_packets(scan, ticking) if names & _TIMED_CONTAINERS else None
        announced = announced_by(container, stream, names)
        facts = _facts(container, stream, scan.first)
        fields = fields_of(stream.codec_context, scan.first)
    if times is None:
        check_decoded(path, len(scan.pts), facts.height, facts.width, max_pixels)
        times = _times_from_decoding(path, max_pixels, cuts, scan, ticking)
    damaged = ["parts of the file cannot be read and are left out"] if scan.damage.cut else []
    interlaced, end = [interlace.NOTE] if fields else [], 0 if scan.is_torn else scan.end
    warnings = (
        *facts.warnings,
        *interlaced,
        *cut_notes(path, announced, scan.came, float(times.seconds[-1]) + times.last_duration),
        *damaged,
        *times.warnings,
        *_films(path, names),
        *_other_notes(later.n_other),
    )
    return Clip(path, _info(path, facts, times, warnings), times.table, max_pixels, times.begin, cuts, fields), end


def _refuse_empty(path: Path, names: set[str], n_announced: int, n_indexed: int, scan: _Scan) -> None:
    """Of a file no packet of which is to be shown. n_indexed: packets in libav's index. Raises MediaError."""
    is_cut = n_missing_bytes(path, names) > 0
    is_edited = bool(scan.pts) or not n_indexed  # libav takes out of its index what edits leave out
    if "mov" in names and n_announced and is_edited and not is_cut:
        raise MediaError(
            f"{path}: its edit list shows none of its {n_announced} pictures; export it again, or take the list away:"
            " ffmpeg -ignore_editlist 1 -i FILE -c copy NEW.mp4"
        )
    if not scan.pts:
        cut = ": it is cut off" if is_cut else ""
        raise MediaError(f"{path}: has a video track without a whole picture{cut}; copy or download the file again")


def _films(path: Path, names: set[str]) -> list[str]:
    n = mp4_parts(path) if "mov" in names else same_heads(path) if names & _ONE_HEAD else 1
    if n < 2:
        return []
    return [f"the file is {n} films joined end to end, of which players see the first: give the others as files"]


def _other_notes(n: int) -> list[str]:
    if not n:
        return []
    are = "1 clip joined to the file is" if n == 1 else f"{n} clips joined to the file are"
    return [f"{are} coded in another way than the first, and left out: give such clips as files of their own"]


@dataclass(frozen=True)
class _Facts:
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    has_audio: bool
    warnings: tuple[str, ...]


def _info(path: Path, facts: _Facts, times: _Times, warnings: tuple[str, ...]) -> VideoInfo:
    duration = float(times.seconds[-1]) + times.last_duration
    n_frames = len(times.seconds)
    return VideoInfo(
        source=str(path),
        container=facts.container,
        codec=facts.codec,
        pixel_format=facts.pixel_format,
        width=facts.width,
        height=facts.height,
        rotation=facts.rotation,
        n_frames=n_frames,
        duration=duration,
        fps=n_frames / duration if duration > 0 else 0.0,
        timestamps=times.seconds,
        has_audio=facts.has_audio,
        warnings=warnings,
    )


def _facts(container: InputContainer, stream: VideoStream, first: VideoFrame) -> _Facts:
    turn = orientation_of(first)
    width, height = (first.height, first.width) if turn.transpose else (first.width, first.height)
    return _Facts(
        container=container.format.name,
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        width=width,
        height=height,
        rotation=turn.degrees,
        has_audio=len(container.streams.audio) > 0,
        warnings=tuple(_look_warnings(stream, first, turn)),
    )


def _look_warnings(stream: VideoStream, first: VideoFrame, turn: Orientation) -> Iterator[str]:
    if turn.warning:
        yield turn.warning
    shape = stream.sample_aspect_ratio
    if shape and abs(float(shape) - 1.0) > 0.03:
        yield f"pixels are not square ({shape.numerator}:{shape.denominator}); frames are used as stored"
    if stream.metadata.get("alpha_mode") == "1" and not any(c.is_alpha for c in first.format.components):
        yield "the clip has transparency that its decoder leaves out: colours that stand under it are shown"
    curve = _HDR_CURVES.get(int(first.color_trc))
    if curve:
        yield f"the clip is HDR ({curve}); colours are used without tone mapping and look pale"


def _scan_packets(container: InputContainer, stream: VideoStream) -> _Scan:
    scan, probe = _Scan(), _Probe(stream)
    is_vp8, place = stream.codec_context.name == "vp8", 0
    for row, packet in enumerate(packets_of(container, stream, scan.damage)):
        scan.goes_back |= (packet.pos or 0) < place
        place = packet.pos or 0
        scan.end = max(scan.end, (packet.pos or 0) + packet.size + _FLV_REST)
        scan.pts.append(packet.pts)
        scan.dts.append(packet.dts)
        scan.durations.append(packet.duration or 0)
        scan.keys.append(packet.is_keyframe)
        scan.shown.append(not packet.is_discard and not (is_vp8 and _is_hidden_vp8(packet)))
        scan.is_torn = packet.is_corrupt
        probe.look(row, packet, scan.damage)
    probe.end(scan.damage)
    scan.first, scan.starts = probe.first, probe.starts
    return scan


class _Probe:
    """Decodes the first frame, and the first one wherever the clock goes back and a new clip may begin.

    first: the first frame of all.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream, self._is_clean = stream, stream.codec_context.name in _CLEAN_STARTERS
        self._dts: int | None = None
        self._hole = -_NEAR_HOLE - 1  # the last packet of which a part is missing
        self._row, self._key = 0, -1  # where the decoder began, and the first key frame since
        self._held: list[Packet[VideoStream]] = []  # before a key frame, in case there is none
        self._looking = True
        self.first: VideoFrame | None = None
        self.starts = list[_Start]()

    def look(self, row: int, packet: Packet[VideoStream], damage: Damage) -> None:
        dts = packet.dts
        self._hole = row if packet.is_corrupt else self._hole
        if dts is not None:
            # a clip that goes on under another clock needs no new decoder; one that was joined to it begins with a
            # key frame, or behind a hole
            joined = packet.is_keyframe or row - self._hole <= _NEAR_HOLE
            if self._dts is not None and dts < self._dts and joined:
                if self._looking:  # the decoder may hold back the first frame
                    self._take(decode(self._stream, None, damage))
                self._stream.codec_context.flush_buffers()
                self._row, self._key, self._looking = row, -1, True
            self._dts = dts
        if not self._looking:
            return
        if packet.is_keyframe and self._key < 0:
            self._key = row
        packet.pts = packet.dts = row
        if self._key < 0 and not self._is_clean:
            self._held.append(packet)
        else:
            self._take(decode(self._stream, packet, damage))

    def end(self, damage: Damage) -> None:
        """After the last packet."""
        if self._looking and self._key < 0 and not self.starts:
            for packet in self._held:
                self._take(decode(self._stream, packet, damage))
                if not self._looking:
                    return
        if self._looking:
            self._take(decode(self._stream, None, damage))

    def _take(self, frames: list[VideoFrame]) -> None:
        if not frames:
            return
        out = frames[0].pts
        self.first = self.first or frames[0]
        self._held.clear()
        self._looking = False
        if out is not None:
            key = self._key if 0 <= self._key <= out else self._row
            self.starts.append(_Start(self._row, key, out))


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    # RFC 6386 section 9.1: bit 4 of the first byte is show_frame
    return not (memoryview(packet)[0] >> 4) & 1


@dataclass(frozen=True)
class _Ticking:
    """How a stream's stamps are to be read. base: seconds of a tick; rate: frames per second, where the file says.

    wraps, reorders: as in clock.py. is_made_up: libav counts packets where the file has no display times.
    """

    base: Fraction
    rate: Fraction | None
    wraps: bool
    reorders: bool
    is_made_up: bool

    @property
    def per_second(self) -> float:
        return float(1 / self.base)

    @property
    def usual(self) -> float:
        """Ticks from a frame to the next."""
        return self.per_second / float(self.rate or 25)

    def seconds(self, ticks: NDArray[np.float64]) -> Seconds:
        return ticks * self.base.numerator / self.base.denominator


def _ticking(stream: VideoStream, names: set[str]) -> _Ticking:
    reorders = bool(stream.codec_context.has_b_frames)
    return _Ticking(
        _time_base(stream), _rate(stream), wraps=bool(names & _WRAPPING), reorders=reorders, is_made_up="avi" in names
    )


def _times_from_packets(scan: _Scan, ticking: _Ticking) -> _Times | None:
    clock = clock_of_packets(
        scan.pts,
        scan.dts,
        scan.shown,
        ticking.per_second,
        ticking.usual,
        wraps=ticking.wraps,
        reorders=ticking.reorders,
        fresh={start.row for start in scan.starts},
    )
    if clock is None:
        return None
    if ticking.reorders and _has_edits(scan):
        return None
    starts = [start for i, start in enumerate(scan.starts) if i == 0 or start.row in clock.parts]
    kept = _decodable(clock, starts)
    if not kept.any():
        return None
    rows, seconds = clock.rows[kept], ticking.seconds(clock.ticks[kept] - clock.ticks[kept][0])
    n_lost = len(kept) - int(kept.sum())
    last = _last_duration(scan.durations[rows[-1]], seconds, ticking)
    table = _table(scan, clock, rows, tuple(start.key for start in starts) or (0,))
    return _Times(seconds, last, table, (*_lost_notes(n_lost, len(starts)), *clock_notes(clock)))


def _table(scan: _Scan, clock: Clock, rows: Indices, parts: tuple[int, ...]) -> PacketTable:
    keys = np.flatnonzero(scan.keys).astype(np.int64)
    if clock.is_plain and _are_distinct(scan.pts):  # an MP4 of several edits gives packets again
        pts = np.array([_NEVER if p is None else p for p in scan.pts], dtype=np.int64)
        dts = np.array([p if d is None else d for p, d in zip(pts, scan.dts, strict=True)], dtype=np.int64)
        return PacketTable(pts, dts, keys, rows, parts)
    numbers = -1 - np.arange(len(scan.pts), dtype=np.int64)  # of packets that show nothing
    numbers[clock.rows] = np.arange(len(clock.rows), dtype=np.int64)
    return PacketTable(numbers, np.arange(len(scan.pts), dtype=np.int64), keys, rows, parts, by_count=True)


def _has_edits(scan: _Scan) -> bool:
    """Of an MP4 of several edits: some of its frames FFmpeg stamps, or leaves out, in ways that no packet tells."""
    return not all(scan.shown) and (scan.goes_back or not _are_distinct(scan.pts))


def _are_distinct(stamps: Sequence[int | None]) -> bool:
    known = [stamp for stamp in stamps if stamp is not None]
    return len(set(known)) == len(known)


def _decodable(clock: Clock, starts: Sequence[_Start]) -> NDArray[np.bool_]:
    """bool [n_frames]: which frames a cut before them does not touch, in display order."""
    kept = np.ones(len(clock.rows), dtype=bool)
    places = np.arange(len(clock.rows))
    bounds = [0, *(start.row for start in starts[1:]), np.inf]
    for i, start in enumerate(starts):
        part = (clock.rows >= bounds[i]) & (clock.rows < bounds[i + 1])
        out = np.flatnonzero(clock.rows == start.out)
        early = places < out[0] if len(out) else clock.rows < start.key
        kept &= ~(part & (early | (clock.rows < start.key)))
    return kept


def _lost_notes(n_lost: int, n_parts: int) -> list[str]:
    if not n_lost:
        return []
    where = "the clip starts" if n_parts < 2 else "the clip, or a clip joined to it, starts"
    frames = "1 frame" if n_lost == 1 else f"{n_lost} frames"
    return [f"{where} inside a group of pictures: left out {frames} that cannot be decoded"]


def _times_from_decoding(path: Path, max_pixels: int, cuts: Cuts, scan: _Scan, ticking: _Ticking) -> _Times:
    pts: list[int | None] = []
    duration, begin = 0, scan.starts[0].key if scan.starts else 0
    with open_stream(path, max_pixels, cuts) as (container, stream):
        for frame in all_frames(container, stream, Damage(), begin):
            pts.append(frame.pts)
            duration = frame.duration
    if not pts:
        raise MediaError(f"{path}: none of its pictures could be decoded; copy or download it again, or re-encode it")
    notes = _lost_notes(begin, 1)
    clock = clock_of_frames(pts, ticking.per_second, ticking.usual)
    if clock is not None and (clock.is_plain or not ticking.is_made_up):
        seconds = ticking.seconds(clock.ticks)
        last = _last_duration(duration, seconds, ticking)
        return _Times(seconds, last, None, (*notes, *clock_notes(clock)), begin)
    assumed = ticking.rate or Fraction(25)
    seconds = np.arange(len(pts), dtype=np.float64) / float(assumed)
    note = f"the file has no display times; they are counted at {float(assumed):g} frames per second"
    return _Times(seconds, float(1 / assumed), None, (*notes, note), begin)


def _last_duration(ticks: int, seconds: Seconds, ticking: _Ticking) -> float:
    if ticks > 0:
        return float(ticks * ticking.base)
    if len(seconds) > 1:
        return float(np.median(np.diff(seconds)))
    return float(1 / ticking.rate) if ticking.rate else 0.0


def _time_base(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, 1000)


def _rate(stream: VideoStream) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate or None
