"""The thread that reads a source, packet by packet, and opens it again when it goes away.

Knows libav's containers. Decoding is another thread's work, so that reading never waits.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from aim_local.errors import MediaError
from aim_local.live.clock import Clock
from aim_local.live.growing import GrowingFile, check_index
from aim_local.live.packets import Arrived, PacketQueue
from aim_local.live.source import LiveSource
from aim_local.media.container import main_stream, prepare
from aim_local.media.other_files import HEAD, is_guessed, other_kind, why_not

TIMEOUT = 10.0  # seconds of silence after which a source is away
_BARREN = 50  # packets without a picture, and TIMEOUT seconds of them
PAUSES = 0.5, 30.0  # seconds before it is opened again, first and longest; each is twice the one before
_AT_ONCE = {"fpsprobesize": "0"}  # the rate of frames is not asked for, and finding it takes seconds
_NO_STAMPS = 0x80  # AVFMT_NOTIMESTAMPS


class _Away(Exception):
    """libav got nothing from the source, which may come back. Its text says why."""


class Reading:
    """say: lines for the user. fail: called with what ends the watch.

    give_up: seconds after which a source that is away, or a file that does not grow, ends it; None: never.
    n_decoded: how many frames came of the packets so far. max_pixels: of a frame.
    """

    def __init__(
        self,
        source: LiveSource,
        queue: PacketQueue,
        clock: Clock,
        say: Callable[[str], None],
        fail: Callable[[BaseException], None],
        give_up: float | None,
        n_decoded: Callable[[], int],
        max_pixels: int,
    ) -> None:
        self._source, self._queue, self._clock = source, queue, clock
        self._say, self._fail, self._give_up = say, fail, give_up
        self._n_decoded, self._max_pixels, self._closed = n_decoded, max_pixels, threading.Event()
        self._n_openings, self._n_packets = 0, 0
        self._away_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="aim-local reader", daemon=True)
        self._thread.start()

    @property
    def is_away(self) -> bool:
        """Whether the source is waited for."""
        return self._away_since is not None

    def close(self) -> None:
        """libav cannot be woken from a read of an address: such a thread ends by itself, within its timeout."""
        self._closed.set()
        self._thread.join(0.3)

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as e:  # told in the thread that looks
            self._fail(e)

    def _loop(self) -> None:
        pause = PAUSES[0]
        while not self._closed.is_set():
            before = self._n_packets
            reason = self._read()
            if self._closed.is_set():
                return
            if self._n_packets > before:
                pause = PAUSES[0]
            if not reason:
                continue
            seen = self._file_state()
            while True:
                self._note_away(reason)
                closed = self._clock.wait(self._closed, self._until_given_up(pause))
                if closed or self._source.kind != "file" or self._file_state() != seen:
                    break
            pause = min(2 * pause, PAUSES[1])

    def _read(self) -> str:
        """Opens it and reads to the end. Returns why it ended, "" where it is to be opened again at once.

        Raises MediaError where waiting is of no use.
        """
        with ExitStack() as stack:
            try:
                file = self._file(stack)
            except OSError as e:
                return _why(e)
            try:
                container = stack.enter_context(self._open(file))
                reason = self._take(container, self._stream_of(container))
            except _Away as e:
                reason = str(e)
            return self._end_of(file, reason) if file else reason

    def _stream_of(self, container: InputContainer) -> VideoStream:
        try:
            if self._source.kind == "file":
                with _away_if():
                    head = _head(self._source.url)
                if is_guessed(head, container.format.name):
                    raise MediaError(f"{self._source.name}: {why_not(head)}")
            stream = main_stream(container, self._source.name)
            prepare(stream, self._source.name, self._max_pixels)
            return stream
        except MediaError as e:
            if not self._n_packets:
                raise
            raise _Away("it has no pictures") from e

    def _end_of(self, file: GrowingFile, reason: str) -> str:
        """As `_read`, of a file."""
        if file.ended_by in ("closed", "another"):
            return ""
        if file.ended_by == "given up":
            raise MediaError(f"{self._source.name}: has not grown for {self._give_up:g} s, so it is given up (give_up)")
        # the container has said that nothing follows
        self._queue.release()
        return reason

    def _file_state(self) -> tuple[int, ...] | None:
        """Another one where a file was changed or replaced: reading an unchanged one again is of no use."""
        try:
            found = os.stat(self._source.url)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _file(self, stack: ExitStack) -> GrowingFile | None:
        source = self._source
        if source.kind != "file":
            return None
        if not stat.S_ISREG(os.stat(source.url).st_mode):  # opening a fifo would wait for its writer
            raise OSError(errno.EINVAL, "what has its name is no file")
        if other := other_kind(_head(source.url)):
            raise MediaError(f"{source.name}: {other}")
        check_index(source.url)
        file = GrowingFile(source.url, self._closed, self._clock, self._queue.release, self._give_up)
        stack.callback(file.close)
        return file

    def _open(self, file: GrowingFile | None) -> InputContainer:
        source = self._source
        self._n_openings += 1
        with _away_if(ValueError):  # PyAV's, for a format that this libav was built without
            found = av.open(
                file or source.url,
                mode="r",
                format=source.format,
                options={**source.options, **_AT_ONCE},
                timeout=None if file else (TIMEOUT, TIMEOUT),
                metadata_errors="replace",
            )
        assert isinstance(found, InputContainer), "opened to be read"
        return found

    def _take(self, container: InputContainer, stream: VideoStream) -> str:
        """All packets, until there are no more, or none gives a picture any more. Returns why it ended."""
        stream.thread_type = "SLICE"  # frame by frame, without delay
        has_stamps, begin, barren = not container.format.flags & _NO_STAMPS, None, _Barren(self._n_decoded())
        for packet in _packets(container, stream):
            if self._closed.is_set():
                break
            if packet.size:
                self._n_packets += 1
                self._note_back()
                arrival = self._clock.now()
                if barren.since(self._n_decoded(), arrival):
                    return "its pictures cannot be decoded any more"
                seconds = arrival if self._source.is_paced else _decoded_at(packet, has_stamps) or 0.0
                begin = _shown_at(packet, has_stamps) or 0.0 if begin is None else begin
                self._queue.put(Arrived(packet, stream, self._n_openings, arrival, seconds, begin, has_stamps))
        return "it ended"

    # --- away and back ---

    def _note_away(self, reason: str) -> None:
        source, now = self._source, self._clock.now()
        if self._n_openings <= 1 and not self._n_packets and source.kind == "camera":
            raise MediaError(f"{source.name}: cannot be opened ({reason}); is it there, and does nobody else use it?")
        if self._away_since is None:
            self._away_since = now
            limit = f" for {self._give_up:g} s at most" if self._give_up is not None else ""
            self._say(f"{source.name} is away ({reason}); waiting for it{limit}")
        if self._give_up is not None and now - self._away_since >= self._give_up:
            raise MediaError(
                f"{source.name}: away for {now - self._away_since:.0f} s ({reason}), so it is given up (give_up)"
            )

    def _note_back(self) -> None:
        if self._away_since is not None:
            self._say(f"{self._source.name} is back after {self._clock.now() - self._away_since:.0f} s")
            self._away_since = None

    def _until_given_up(self, pause: float) -> float:
        """The pause, or what is left until the source is given up."""
        if self._give_up is None or self._away_since is None:
            return pause
        return min(pause, max(0.0, self._away_since + self._give_up - self._clock.now()))


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Raises _Away where reading fails; what is done with a packet may fail as it likes."""
    packets = iter(container.demux(stream))
    while True:
        with _away_if():
            packet = next(packets, None)
        if packet is None:
            return
        yield packet


@contextmanager
def _away_if(*others: type[Exception]) -> Iterator[None]:
    """For calls of libav and the system alone: waiting out a fault of the program would never end."""
    try:
        yield
    except MemoryError:  # PyAV's is an FFmpegError too
        raise
    except (av.FFmpegError, OSError, *others) as e:
        raise _Away(_why(e)) from e


def _why(e: Exception) -> str:
    """Without the address, which libav puts into its errors."""
    if isinstance(e, av.error.ExitError):
        return f"silent for {TIMEOUT:g} s"
    if isinstance(e, av.error.InvalidDataError):
        return "no video that can be read"
    return str(getattr(e, "strerror", None) or type(e).__name__)


class _Barren:
    """Tells a stream whose packets give no pictures any more: another codec has begun, which needs another decoder."""

    def __init__(self, n_decoded: int) -> None:
        self._first = self._n_decoded = n_decoded
        self._since, self._n_packets = 0.0, 0

    def since(self, n_decoded: int, arrival: float) -> bool:
        """A packet came; so many frames were decoded by then. Whether it is time to open the source anew."""
        if n_decoded != self._n_decoded or not self._n_packets:
            self._n_decoded, self._since, self._n_packets = n_decoded, arrival, 0
        self._n_packets += 1
        was_seen = self._n_decoded > self._first  # a first key frame may take long to come
        return was_seen and self._n_packets > _BARREN and arrival - self._since > TIMEOUT


def _shown_at(packet: Packet[VideoStream], has_stamps: bool) -> float | None:
    """In seconds, by its own stamps."""
    return _seconds(packet.pts, packet) if has_stamps else None


def _decoded_at(packet: Packet[VideoStream], has_stamps: bool) -> float | None:
    return _seconds(packet.pts if packet.dts is None else packet.dts, packet) if has_stamps else None


def _seconds(ticks: int | None, packet: Packet[VideoStream]) -> float | None:
    return None if ticks is None or packet.time_base is None else float(ticks * packet.time_base)


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)
