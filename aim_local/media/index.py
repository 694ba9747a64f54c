"""A video file as a table of frames: when each is shown and which packets hold it, without decoding them all.

Knows: PyAV containers and streams. Leaves to others: which frames are wanted and how they are decoded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aim_local.config import MAX_PIXELS
from aim_local.errors import MediaError
from aim_local.media.budget import check_decoded
from aim_local.media.container import Damage, all_frames, decode, open_stream, packets_of
from aim_local.media.orientation import Orientation, orientation_of
from aim_local.media.seek import PacketTable
from aim_local.media.types import Indices, Seconds, VideoInfo

# containers whose packets carry true display times; avi, mpeg and raw streams make them up or leave them out
_TIMED_CONTAINERS = frozenset({"mov", "matroska", "webm", "mpegts", "flv"})
_HDR_CURVES = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, eq=False)
class Clip:
    """A probed video file. table: None where packets do not tell the frames, which are then counted while decoding."""

    path: Path
    info: VideoInfo
    table: PacketTable | None


@dataclass
class _Scan:
    # one entry per packet, in file order
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    first: VideoFrame | None = None
    damage: Damage = field(default_factory=Damage)


@dataclass(frozen=True, eq=False)
class _Times:
    seconds: Seconds  # [n_frames]
    last_duration: float
    table: PacketTable | None
    warnings: tuple[str, ...] = ()


def index_video(path: Path, max_pixels: int = MAX_PIXELS) -> Clip:
    """Probe a file: one pass over its packets, one decoded frame (containers without display times: all decoded).

    Raises MediaError for a file that is no video, has no pictures, or none that can be decoded, MediaBudgetError for
    one that takes more than max_pixels allow (budget.py).
    """
    with open_stream(path, max_pixels) as (container, stream):
        names = set(container.format.name.split(","))
        scan = _scan_packets(container, stream)
        if not scan.pts:
            raise MediaError(f"{path}: has a video track without a picture; copy or download the file again")
        if scan.first is None:
            raise MediaError(
                f"{path}: none of its {len(scan.pts)} pictures could be decoded (codec {stream.codec_context.name});"
                " the file is damaged: copy or download it again, or re-encode it"
            )
        # a stream's fields are read here: they are gone once the container is closed
        base, rate = _time_base(stream), _rate(stream)
        times = _times_from_packets(scan, base, rate) if names & _TIMED_CONTAINERS else None
        announced = _cut_off(container, stream, scan, times, names)
        facts = _facts(container, stream, scan.first)
    if times is None:
        check_decoded(path, len(scan.pts), facts.height, facts.width, max_pixels)
        times = _times_from_decoding(path, base, rate)
    damaged = ["parts of the file cannot be read and are left out"] if scan.damage.cut else []
    warnings = (*facts.warnings, *announced, *damaged, *times.warnings)
    return Clip(path, _info(path, facts, times, warnings), times.table)


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
    curve = _HDR_CURVES.get(int(first.color_trc))
    if curve:
        yield f"the clip is HDR ({curve}); colours are used without tone mapping and look pale"


def _scan_packets(container: InputContainer, stream: VideoStream) -> _Scan:
    scan = _Scan()
    is_vp8 = stream.codec_context.name == "vp8"
    for packet in packets_of(container, stream, scan.damage):
        scan.pts.append(packet.pts)
        scan.dts.append(packet.dts)
        scan.durations.append(packet.duration or 0)
        scan.keys.append(packet.is_keyframe)
        scan.shown.append(not packet.is_discard and not (is_vp8 and _is_hidden_vp8(packet)))
        if scan.first is None:
            scan.first = next(iter(decode(stream, packet, scan.damage)), None)
    if scan.first is None:
        scan.first = next(iter(decode(stream, None, scan.damage)), None)
    return scan


def _is_hidden_vp8(packet: Packet[VideoStream]) -> bool:
    # RFC 6386 section 9.1: bit 4 of the first byte is show_frame
    return not (memoryview(packet)[0] >> 4) & 1


def _times_from_packets(scan: _Scan, base: Fraction, rate: Fraction | None) -> _Times | None:
    if any(p is None for p in scan.pts) or len(set(scan.pts)) != len(scan.pts) or not any(scan.shown):
        return None
    pts = np.array(scan.pts, dtype=np.int64)
    dts = np.array([p if d is None else d for p, d in zip(scan.pts, scan.dts, strict=True)], dtype=np.int64)
    rows = np.flatnonzero(scan.shown)
    shown = rows[np.argsort(pts[rows])].astype(np.int64)
    seconds = _seconds(pts[shown], base)
    table = PacketTable(pts=pts, dts=dts, keys=np.flatnonzero(scan.keys).astype(np.int64), shown=shown)
    return _Times(seconds, _last_duration(scan.durations[shown[-1]], seconds, base, rate), table)


def _times_from_decoding(path: Path, base: Fraction, rate: Fraction | None) -> _Times:
    pts: list[int | None] = []
    duration = 0
    with open_stream(path) as (container, stream):
        for frame in all_frames(container, stream, Damage()):
            pts.append(frame.pts)
            duration = frame.duration
    if not pts:
        raise MediaError(f"{path}: none of its pictures could be decoded; copy or download it again, or re-encode it")
    known = [p for p in pts if p is not None]
    if len(known) == len(pts) and all(b > a for a, b in itertools.pairwise(known)):
        seconds = _seconds(np.array(known, dtype=np.int64), base)
        return _Times(seconds, _last_duration(duration, seconds, base, rate), None)
    assumed = rate or Fraction(25)
    seconds = np.arange(len(pts), dtype=np.float64) / float(assumed)
    note = f"the file has no display times; they are counted at {float(assumed):g} frames per second"
    return _Times(seconds, float(1 / assumed), None, (note,))


def _seconds(pts: Indices, base: Fraction) -> Seconds:
    # t = 0 is the first frame shown, wherever the container's own clock starts
    ticks: Seconds = (pts - pts[0]).astype(np.float64)
    return ticks * base.numerator / base.denominator


def _last_duration(ticks: int, seconds: Seconds, base: Fraction, rate: Fraction | None) -> float:
    if ticks > 0:
        return float(ticks * base)
    if len(seconds) > 1:
        return float(np.median(np.diff(seconds)))
    return float(1 / rate) if rate else 0.0


def _time_base(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, 1000)


def _rate(stream: VideoStream) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate or None


def _cut_off(
    container: InputContainer, stream: VideoStream, scan: _Scan, times: _Times | None, names: set[str]
) -> list[str]:
    n_found = len(scan.pts)
    if "mov" in names and stream.frames > n_found:
        return [f"the file is cut off: {n_found} of {stream.frames} frames are there"]
    if times is None or "matroska" not in names or container.duration is None:
        return []
    announced, found = container.duration / av.time_base, float(times.seconds[-1]) + times.last_duration
    if announced > 1.1 * found + 1.0:
        return [f"the file announces {announced:.1f} s, but its pictures end at {found:.1f} s"]
    return []
