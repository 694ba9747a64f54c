"""Chosen frames of a video file, decoded.

Knows: the walk through packets, jumps included, and its repair. Leaves to others: which frames, and their use.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import PIL.Image
from av import VideoFrame
from av.container import InputContainer
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from aim_local.errors import MediaError, MediaMemoryError
from aim_local.media.canvas import Canvas
from aim_local.media.colours import on_white
from aim_local.media.container import Damage, all_frames, decode, open_stream, packets_of
from aim_local.media.foreign import decoding
from aim_local.media.index import Clip
from aim_local.media.interlace import NOTE, Fields, deinterlaced, with_neighbours
from aim_local.media.orientation import orientation_of
from aim_local.media.seek import PacketTable, Segment, plan_segments
from aim_local.media.types import Frames, Indices

Threads = Literal["AUTO", "SLICE"]
_Packet: TypeAlias = "Packet[VideoStream]"


class _MissedKeyFrame(Exception):
    """A jump landed behind the packet it aimed at."""


def decode_onto(canvas: Canvas, clip: Clip) -> tuple[list[str], bool]:
    """Put every frame the canvas misses that can be decoded, as decoding the whole file gives it.

    Returns warnings, and whether the decoder found everything sound. Where it did not, that need not be the file's
    fault: to a decoder that got no memory for a moment, the frames in hand are damaged.
    """
    damage, notes, fields = Damage(), list[str](), clip.fields
    if fields is None:
        n_fields = _put_progressive(canvas, _frames(clip, canvas.missing(), "AUTO", damage))
        if n_fields:  # the first frame of the clip did not say so
            fields, notes = Fields(), [NOTE]
    if fields is not None:
        _put_whole(canvas, clip, fields, "AUTO", damage)
    if clip.table is not None and canvas.missing():
        # one key frame sooner: with periodic intra refresh a key frame alone is no clean start
        # in one thread: after damage, frame threads may swallow good neighbours
        if fields is None:
            _put_progressive(canvas, _frames(clip, canvas.missing(), "SLICE", Damage(), earlier=1))
        else:
            _put_whole(canvas, clip, fields, "SLICE", Damage(), earlier=1)
    if damage.n_packets + damage.n_concealed > len(canvas.missing()):  # others were made from these
        notes = [*notes, "the file is damaged near the chosen frames; some may show traces of it"]
    return notes, not damage.n_packets and not damage.n_concealed


def needed(clip: Clip, indices: Sequence[int] | Indices) -> list[int]:
    """Display indices of the frames that must come out of the decoder for `indices`, ascending."""
    wanted = [int(i) for i in indices]
    return with_neighbours(wanted, clip.info.n_frames) if clip.fields else wanted


def count_decoded(clip: Clip, indices: Sequence[int] | Indices) -> int:
    """Frames that have to be decoded for those with these numbers, ascending."""
    if clip.table is None:
        return needed(clip, indices)[-1] + 1
    return sum(run.last - run.first + 1 for run in plan_segments(clip.table, needed(clip, indices)))


def _put_progressive(canvas: Canvas, frames: Iterator[tuple[int, VideoFrame]]) -> int:
    """Puts frames as they are; returns how many were left for being interlaced."""
    # the same as frame.to_ndarray(format="rgb24"), but the scaler is set up once
    to_rgb, n_left = VideoReformatter(), 0
    for index, frame in frames:
        if frame.interlaced_frame:
            n_left += 1
        else:
            _put(canvas, index, frame, to_rgb)
    return n_left


def _put_whole(canvas: Canvas, clip: Clip, fields: Fields, threads: Threads, damage: Damage, earlier: int = 0) -> None:
    wanted, to_rgb = canvas.missing(), VideoReformatter()
    frames = _frames(clip, with_neighbours(wanted, clip.info.n_frames), threads, damage, earlier)
    for index, frame in deinterlaced(frames, frozenset(wanted), fields):
        _put(canvas, index, frame, to_rgb)


def _put(canvas: Canvas, index: int, frame: VideoFrame, to_rgb: VideoReformatter) -> None:
    try:
        pixels = rgb(frame, to_rgb, canvas.source)
    except MediaMemoryError:
        raise
    except MediaError:
        # the canvas counts and reports what never came
        return
    canvas.put(index, pixels)


def _frames(
    clip: Clip, indices: Sequence[int], threads: Threads, damage: Damage, earlier: int = 0
) -> Iterator[tuple[int, VideoFrame]]:
    """Those of the frames that can be decoded, with their display indices, ascending."""
    table = clip.table
    if table is None:
        yield from _counted_frames(clip, indices, damage)
        return
    came, segments = set[int](), plan_segments(table, indices, earlier=earlier)
    try:
        for index, frame in _frames_by_packet(clip, table, segments, threads, damage):
            came.add(index)
            yield index, frame
    except _MissedKeyFrame:
        # the container's own index is wrong or absent: decode from the start, and count packets
        left, table = [index for index in indices if index not in came], replace(table, by_count=True)
        segments = plan_segments(table, left, seek_cost=len(table.pts))
        yield from _frames_by_packet(clip, table, segments, threads, damage)


def rgb(frame: VideoFrame, to_rgb: VideoReformatter, name: str) -> Frames:
    """A decoded frame as it is shown, uint8 [H, W, 3]; what is transparent shows white, as in pictures.

    name: of the source, for errors. Raises MediaError where libav cannot convert the frame.
    """
    has_alpha = any(component.is_alpha for component in frame.format.components)
    with decoding(name, "has a frame that cannot be shown"):  # faults of our own are none of the frame's
        pixels = np.asarray(to_rgb.reformat(frame, format="rgb24").to_ndarray(), dtype=np.uint8)  # [h, w, 3]
        rgba = np.asarray(to_rgb.reformat(frame, format="rgba").to_ndarray(), np.uint8) if has_alpha else None
    shown = pixels if rgba is None else _over_white(pixels, rgba[..., 3])
    return orientation_of(frame).apply(shown)  # [H, W, 3]


def _over_white(pixels: Frames, alpha: NDArray[np.uint8]) -> Frames:
    """pixels: uint8 [h, w, 3]. Where alpha [h, w] is 0 everywhere, they come as they are: programs leave it unset."""
    if alpha.min() == 255 or not alpha.any():
        return pixels
    return on_white(PIL.Image.fromarray(np.dstack((pixels, alpha))))


def _counted_frames(clip: Clip, wanted: Sequence[int], damage: Damage) -> Iterator[tuple[int, VideoFrame]]:
    left = set(wanted)
    with open_stream(clip.path, clip.max_pixels, clip.cuts) as (container, stream):
        for index, frame in enumerate(all_frames(container, stream, damage, clip.begin)):
            if index in left:
                left.remove(index)
                yield index, frame
            if not left:
                return


def _frames_by_packet(
    clip: Clip, table: PacketTable, segments: Sequence[Segment], threads: Threads, damage: Damage
) -> Iterator[tuple[int, VideoFrame]]:
    row_of = {int(pts): row for row, pts in enumerate(table.pts)}
    with open_stream(clip.path, clip.max_pixels, clip.cuts) as (container, stream):
        stream.thread_type = threads
        counted = _counted_packets(packets_of(container, stream, damage), table)
        for number, segment in enumerate(segments):
            if table.by_count:
                if number:
                    stream.codec_context.flush_buffers()
                packets = counted
            else:
                if segment.first > table.parts[0]:
                    _jump(container, stream, table, segment.first)
                packets = _found_packets(packets_of(container, stream, damage), row_of)
            yield from _segment_frames(packets, stream, table, segment, damage)


def _found_packets(packets: Iterator[_Packet], row_of: Mapping[int, int]) -> Iterator[tuple[int, _Packet]]:
    """With their rows, by their stamps."""
    for packet in packets:
        row = row_of.get(packet.pts) if packet.pts is not None else None
        if row is not None:
            yield row, packet


def _counted_packets(packets: Iterator[_Packet], table: PacketTable) -> Iterator[tuple[int, _Packet]]:
    """With their rows, by their order in the file; stamped with the table's numbers."""
    for row, packet in enumerate(itertools.islice(packets, len(table.pts))):
        packet.pts, packet.dts = int(table.pts[row]), int(table.dts[row])
        yield row, packet


def _jump(container: InputContainer, stream: VideoStream, table: PacketTable, row: int) -> None:
    # matroska indexes display times, the others decode times
    times = table.pts if "matroska" in container.format.name.split(",") else table.dts
    container.seek(int(times[row]), stream=stream, backward=True)


def _segment_frames(
    packets: Iterator[tuple[int, _Packet]], stream: VideoStream, table: PacketTable, segment: Segment, damage: Damage
) -> Iterator[tuple[int, VideoFrame]]:
    wanted = {int(table.pts[table.shown[index]]): index for index in segment.frames}
    on_track = False
    for row, packet in packets:
        if row < segment.first:
            continue
        if not on_track and row > segment.first:
            raise _MissedKeyFrame
        on_track = True
        for frame in decode(stream, packet, damage):
            if frame.pts in wanted:
                yield wanted.pop(frame.pts), frame
        if not wanted or row >= segment.last:
            break
    # what the decoder still holds back for reordering
    for frame in decode(stream, None, damage) if wanted else []:
        if frame.pts in wanted:
            yield wanted.pop(frame.pts), frame
