"""Frames of two fields made whole: the lines of one moment, those between computed from their neighbours in time.

FFmpeg's bwdif, on frames that say they are interlaced, and on all where only the stream says so; the number of frames
and their times stay. A frame needs the one before and the one behind it. Leaves to others: which frames are wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from av import VideoFrame
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext

NOTE = "the clip is interlaced: its frames are deinterlaced (bwdif)"
_FIELDS_FIRST = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}  # AVFieldOrder: TT, BB, TB, BT, by the field shown first
_FRAMES_SAY = frozenset(
    {"mpeg2video", "vc1", "hevc"}
)  # films in streams that may hold fields: each frame says what it is


@dataclass(frozen=True)
class Fields:
    """How a clip is interlaced. first: the field of every frame that is shown first, where only the stream says so."""

    first: str | None = None


def fields_of(codec: VideoCodecContext, frame: VideoFrame) -> Fields | None:
    """Of a clip, by its first frame and its stream; None where it is progressive as far as these say."""
    if frame.interlaced_frame:
        return Fields()
    first = None if codec.name in _FRAMES_SAY else _FIELDS_FIRST.get(int(codec.field_order))
    return Fields(first) if first else None


def with_neighbours(wanted: Collection[int], n_frames: int) -> list[int]:
    """Display indices of the frames that deinterlacing `wanted` takes, ascending."""
    return sorted({near for i in wanted for near in (i - 1, i, i + 1) if 0 <= near < n_frames})


def deinterlaced(
    frames: Iterable[tuple[int, VideoFrame]], wanted: Collection[int], fields: Fields
) -> Iterator[tuple[int, VideoFrame]]:
    """Those of `wanted` made whole, in order. frames: with their display indices, ascending."""
    run = _Run(fields)
    for index, frame in frames:
        if run.indices and not run.takes(index, frame):
            yield from (found for found in run.end() if found[0] in wanted)
            run = _Run(fields)
        yield from (found for found in run.put(index, frame) if found[0] in wanted)
    yield from (found for found in run.end() if found[0] in wanted)


class _Run:
    """Frames one behind the other, all of one size and format."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._graph: Graph | None = None
        self._like: tuple[int, int, str] | None = None
        self.indices: list[int] = []  # of frames that went in and did not come out yet
        self._last = -1

    def takes(self, index: int, frame: VideoFrame) -> bool:
        return index == self._last + 1 and self._like == _like(frame)

    def put(self, index: int, frame: VideoFrame) -> Iterator[tuple[int, VideoFrame]]:
        graph = self._graph or self._begun(frame)
        self.indices.append(index)
        self._last = index
        # the filter's own clock: stamps of the file are not to be trusted
        frame.pts, frame.time_base = index, Fraction(1, 1000)
        graph.push(frame)
        yield from self._out(graph)

    def end(self) -> Iterator[tuple[int, VideoFrame]]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._out(self._graph)

    def _out(self, graph: Graph) -> Iterator[tuple[int, VideoFrame]]:
        while True:
            try:
                frame = graph.pull()
            except (BlockingIOError, EOFError):
                return
            assert isinstance(frame, VideoFrame), "a graph of pictures"
            yield self.indices.pop(0), frame

    def _begun(self, frame: VideoFrame) -> Graph:
        graph, first = Graph(), self._fields.first
        nodes = [
            graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
        ]  # fmt: skip
        if first:
            nodes.append(graph.add("setfield", f"mode={first}"))
        nodes.append(graph.add("bwdif", f"mode=send_frame:parity=auto:deint={'all' if first else 'interlaced'}"))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        self._graph, self._like = graph, _like(frame)
        return graph


def _like(frame: VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
