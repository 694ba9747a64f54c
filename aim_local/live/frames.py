"""The thread that decodes packets, and frames that wait for the encoder.

Of the frames that are not taken nothing is kept; those that are taken are fitted to the tower at once, interlaced ones
when the frame behind them is here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from av import VideoFrame
from av.video.reformatter import VideoReformatter

from aim_local.errors import MediaError, MediaMemoryError
from aim_local.live.choose import Chooser
from aim_local.live.packets import Arrived, PacketQueue
from aim_local.live.timeline import Timeline
from aim_local.media.container import Damage, decode
from aim_local.media.decode import rgb
from aim_local.media.interlace import Fields, deinterlaced, fields_of
from aim_local.media.types import Frames, Size

_WAIT = 0.2  # seconds between two looks at a wish to stop


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """pixels: fitted to the tower, uint8 [H, W, 3]; size: (height, width) of the source.

    seconds: since the first frame of the watch; arrival: when it came, of the clock.
    """

    pixels: Frames
    size: Size
    seconds: float
    arrival: float


class Waiting:
    """Frames that wait for the encoder, at most `room`; the oldest go first."""

    def __init__(self, room: int) -> None:
        self._frames: deque[LiveFrame] = deque(maxlen=room)
        self._is_out = False  # whether one is being encoded
        self._change = threading.Condition()

    def put(self, frame: LiveFrame) -> None:
        with self._change:
            self._frames.append(frame)
            self._change.notify_all()

    def get(self, wait: float = _WAIT) -> LiveFrame | None:
        """The oldest; None where none came in `wait` seconds."""
        with self._change:
            self._is_out = False
            self._change.wait_for(lambda: self._frames, wait)
            self._is_out = bool(self._frames)
            return self._frames.popleft() if self._frames else None

    @property
    def is_idle(self) -> bool:
        """Whether none waits, and the one that was given last is done."""
        with self._change:
            return not self._frames and not self._is_out

    def thin(self, rate: float, after: float, room: int) -> None:
        """Keeps those that are taken at `rate` frames a second after one at `after`; has that room from now on."""
        with self._change:
            chooser = Chooser(rate, after)
            self._frames = deque((f for f in self._frames if chooser.takes(f.seconds)), maxlen=room)


class Decoding:
    """fit: from a frame of the source to what is kept of it. fail: called with what ends the watch."""

    def __init__(
        self,
        queue: PacketQueue,
        timeline: Timeline,
        chooser: Chooser,
        fit: Callable[[Frames], Frames],
        taken: Callable[[LiveFrame], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._queue, self._timeline, self._chooser = queue, timeline, chooser
        self._fit, self._taken, self._fail = fit, taken, fail
        self._closed = threading.Event()
        self._to_rgb, self._opening, self.n_frames = VideoReformatter(), 0, 0
        self._before: VideoFrame | None = None  # the frame that came last
        self._half: _Half | None = None
        self._thread = threading.Thread(target=self._run, name="aim-local live decoder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                item = self._queue.get(_WAIT)
                if item:
                    self._decode(item)
        except BaseException as e:  # told in the thread that looks
            self._fail(e)

    def _decode(self, item: Arrived) -> None:
        if item.opening != self._opening:
            if self._opening:
                self._timeline.cut()
            self._finish(None)
            self._opening, self._to_rgb, self._before = item.opening, VideoReformatter(), None
        for frame in decode(item.stream, item.packet, Damage()):
            stamped = item.has_stamps and frame.pts is not None and frame.time_base is not None
            stamp = float(frame.pts * frame.time_base) if stamped else None
            self.n_frames += 1
            seconds = self._timeline.seconds(stamp, item.arrival, item.begin)
            self._finish(frame)
            if self._chooser.takes(seconds):
                fields = fields_of(item.stream.codec_context, frame)
                if fields:
                    self._half = _Half(self._before, frame, fields, item, seconds)
                else:
                    self._take(frame, item, seconds)
            self._before = frame

    def _finish(self, behind: VideoFrame | None) -> None:
        """The interlaced frame that waits for the one behind it; None: there is none."""
        half, self._half = self._half, None
        if half is None:
            return
        near = [(i, one) for i, one in enumerate((half.before, half.frame, behind)) if one]
        for _, frame in deinterlaced(near, {1}, half.fields):
            self._take(frame, half.item, half.seconds)

    def _take(self, frame: VideoFrame, item: Arrived, seconds: float) -> None:
        try:
            pixels = rgb(frame, self._to_rgb, "the source")
        except MediaMemoryError:
            raise
        except MediaError:
            return
        height, width = pixels.shape[:2]
        self._taken(LiveFrame(self._fit(pixels), (height, width), seconds, item.arrival))


@dataclass(frozen=True, eq=False)
class _Half:
    """An interlaced frame that was taken, and the one before it."""

    before: VideoFrame | None
    frame: VideoFrame
    fields: Fields
    item: Arrived
    seconds: float
