"""A source that is watched: its threads, the window of encoded frames, and looks at it for questions.

Three threads read, decode and encode; none waits for another longer than it must, and what is between them is bounded.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aim_local.engine.rolling import Recent, Rolling
from aim_local.errors import CancelledError, ClosedError, MediaError
from aim_local.live.choose import Chooser, Pace
from aim_local.live.clock import Clock, SystemClock
from aim_local.live.frames import Decoding, LiveFrame, Waiting
from aim_local.live.packets import PacketQueue
from aim_local.live.reading import Reading
from aim_local.live.source import LiveSource, parse_source
from aim_local.live.timeline import Timeline
from aim_local.live.window import WindowSize, n_leaving
from aim_local.llm import VisionLLM
from aim_local.media.canvas import MAX_FRAME_BYTES
from aim_local.media.types import Frames

_BEHIND = 5.0  # seconds of packets that may wait for the decoder
_BEHIND_FILE = 60.0  # of a file, which may grow by so much at once
_QUIET = 10.0  # seconds without a first frame, after which it is said
_ROOM_WHEN_SLOW = 2  # frames that wait for the encoder where not all are taken
_LOOK = 0.2  # seconds between two looks at signals, on systems whose waits none interrupts
_SYSTEM = SystemClock()


@dataclass(frozen=True, eq=False)
class Look:
    """The window as it was at one moment.

    item: to be given to `generate` or `ask` in the place of a path. start, end: of the window, in the stream's seconds
    since the watch began; the model is told times from `start` on. wall: seconds since 1970. age: seconds since the
    newest frame came. one_of: of so many frames one was read lately, because the machine encodes no more.
    """

    item: Recent
    wall: float
    age: float
    one_of: int

    @property
    def start(self) -> float:
        return self.item.start

    @property
    def end(self) -> float:
        return self.item.end

    @property
    def n_frames(self) -> int:
        return len(self.item.video.frames)


def _silent(_: str) -> None:
    pass


class LiveVideo:
    """`close()` (or `with`) ends its threads. say: called with lines for the user, in any thread.

    What ends the watch (a source that is given up, a file that cannot be read) is raised by the next look or wait.
    """

    def __init__(
        self,
        llm: VisionLLM,
        source: LiveSource,
        size: WindowSize,
        *,
        give_up: float | None = None,
        say: Callable[[str], None] = _silent,
        clock: Clock = _SYSTEM,
    ) -> None:
        self.source, self.size, self._clock, self._say = source, size, clock, say
        self._rolling = Rolling(llm.model, llm.turns, source.name, 1 / size.fps)
        self._closed, self._change = threading.Event(), threading.Condition()
        self._failed: BaseException | None = None
        self._first, self._newest_arrival = math.inf, 0.0  # seconds of the first frame; when the last one came
        self._pace, self._told = Pace(size.fps), 1
        self._chooser, self._waiting = Chooser(size.fps), Waiting(size.most)
        self._queue = PacketQueue(_BEHIND) if source.is_paced else PacketQueue(_BEHIND_FILE, end=size.seconds)
        self._has_caught_up = source.is_paced
        self._decoding = Decoding(
            self._queue,
            Timeline(is_paced=source.is_paced),
            self._chooser,
            self._fit,
            self._waiting.put,
            self._fail,
        )
        self._encoder = threading.Thread(target=self._encode, name="aim-local live encoder", daemon=True)
        self._encoder.start()
        self._reading = Reading(
            source, self._queue, clock, say, self._fail, give_up, lambda: self._decoding.n_frames,
            llm.model.config.max_pixels,
        )  # fmt: skip

    # --- for questions ---

    def look(self) -> Look | None:
        """The window as it is now; None before the first frame. Raises what ended the watch."""
        if self._failed:
            raise self._failed
        arrival = self._newest_arrival
        item = self._rolling.recent()
        if item is None:
            return None
        return Look(item, self._clock.wall(), max(0.0, self._clock.now() - arrival), self._pace.one_of)

    def wait(self, *, full: bool = False) -> Look:
        """Until there is a frame, or the window is full. Raises what ended the watch, CancelledError when closed."""
        told, start = False, self._clock.now()
        while True:
            is_current = not full or self._is_current()  # before the look, which is not of earlier then
            look = self.look()
            if look and is_current and (not full or self._is_full(look)):
                return look
            if not look and not told and self._clock.now() - start > _QUIET and not self._reading.is_away:
                self._say(f"{self.source.name}: no picture in {_QUIET:g} s; waiting for one")
                told = True
            if self._closed.is_set():
                raise CancelledError(f"{self.source.name} is not watched any more")
            with self._change:
                self._change.wait(_LOOK)

    def every(self, seconds: float) -> Iterator[Look]:
        """A look every so many seconds, from the first frame on, while there are new frames; none is made up for.

        Ends when the watch is closed. Raises what ended it.
        """
        self.wait()
        start, n, end = self._clock.now(), 0, None
        while not self._closed.is_set():
            n = max(n + 1, int((self._clock.now() - start) // seconds))
            while not self._closed.is_set() and self._clock.now() < start + n * seconds:
                self._clock.wait(self._closed, min(_LOOK * 5, start + n * seconds - self._clock.now()))
                self.look()  # what ended the watch is told at once
            look = self.look()
            if look and look.end != end and not self._closed.is_set():
                end = look.end
                yield look

    def _is_current(self) -> bool:
        """Of a file, whether what it held at the beginning has been seen; its window is its end then."""
        self._has_caught_up = self._has_caught_up or (not self._queue.has_stock and self._waiting.is_idle)
        return self._has_caught_up

    def _is_full(self, look: Look) -> bool:
        """Also of a source that has fewer frames than are wanted."""
        return look.n_frames >= self.size.most or look.end - self._first >= self.size.seconds

    # --- the encoder's thread ---

    def _encode(self) -> None:
        try:
            while not self._closed.is_set():
                frame = self._waiting.get()
                if frame:
                    self._take(frame)
        except (CancelledError, ClosedError):
            return
        except BaseException as e:  # told in the thread that looks
            self._fail(e)

    def _fit(self, pixels: Frames) -> Frames:
        """In the decoder's thread. Raises MediaError for a window that is too large for a tower that fits nothing."""
        kept = self._rolling.fit(pixels, self.size.most)
        if kept.nbytes * self.size.most > MAX_FRAME_BYTES:
            raise MediaError(
                f"{self.source.name}: a window of {self.size.most} frames of {kept.shape[1]} x {kept.shape[0]} needs "
                f"{kept.nbytes * self.size.most / 2**30:.1f} GiB, at most {MAX_FRAME_BYTES / 2**30:g} GiB are allowed; "
                "take fewer frames, or a shorter window"
            )
        return kept

    def _take(self, frame: LiveFrame) -> None:
        rolling, start = self._rolling, self._clock.now()
        if rolling.size not in (None, frame.pixels.shape[:2]):
            height, width = frame.size
            self._say(f"the picture is {width} x {height} now; the window begins anew")
            rolling.clear()
        rolling.add(frame.pixels, frame.size, frame.seconds, self._closed.is_set)
        rolling.drop(n_leaving(rolling.times, self.size))
        self._first, self._newest_arrival = min(self._first, frame.seconds), frame.arrival
        if self._pace.note(self._clock.now() - start):
            self._chooser.rate = self._pace.rate
            room = self.size.most if self._pace.one_of == 1 else _ROOM_WHEN_SLOW
            self._waiting.thin(self._pace.rate, frame.seconds, room)
            self._tell_pace()
        with self._change:
            self._change.notify_all()

    def _tell_pace(self) -> None:
        """Once, and again when it has become twice as bad."""
        one_of = self._pace.one_of
        if one_of >= 2 * self._told:
            self._told = one_of
            self._say(f"reads 1 of {one_of} frames: this machine encodes {self._pace.encodes:.2g} frames a second")

    def _fail(self, e: BaseException) -> None:
        self._failed = self._failed or e
        with self._change:
            self._change.notify_all()

    # --- life cycle ---

    def close(self) -> None:
        """Ends the threads; the model stays open. Idempotent."""
        self._closed.set()
        self._queue.close()
        self._reading.close()
        self._decoding.close()
        self._encoder.join()

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def watch(
    llm: VisionLLM,
    source: str,
    size: WindowSize | None = None,
    *,
    give_up: float | None = None,
    say: Callable[[str], None] = _silent,
    clock: Clock = _SYSTEM,
) -> LiveVideo:
    """Begins to watch a camera, a stream or a growing file (see live/source.py).

    size: None for the model's own number of frames, one a second. give_up: seconds after which a source that is away
    ends the watch; None: it is waited for. Raises UsageError, MediaError, ModelError.
    """
    chosen = size or WindowSize.of(default=llm.default_frames or 1)
    return LiveVideo(llm, parse_source(source), chosen, give_up=give_up, say=say, clock=clock)
