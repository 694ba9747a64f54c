"""Streams on loopback that tests drive step by step, and a clock that goes as they say.

    clock = ManualClock()
    with Station(clock) as station:                        # a TCP server; Station(clock, http=True) speaks HTTP
        with watched(llm, station.url, clock) as live:
            station.send(live, pieces(40, rate=5))         # one piece a frame, the clock goes with them

A piece is sent when what was sent some seconds before has been seen, so nothing depends on the machine's speed.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from media_fixtures import code_of, picture
from PIL import Image

from aim_local import VisionLLM
from aim_local.live import LiveVideo, Look, WindowSize, parse_source

WIDTH, HEIGHT = 96, 64
LEAD = 3.0  # seconds of stream that may be sent and not seen yet
LONG = 60.0  # seconds after which a test that hangs fails


class ManualClock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self._now, self._change = 1000.0, threading.Condition()

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return 1.7e9 + self._now

    def forward(self, seconds: float) -> None:
        with self._change:
            self._now += seconds
            self._change.notify_all()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        end = self._now + seconds
        with self._change:
            while not event.is_set() and self._now < end:
                self._change.wait(0.02)
        return event.is_set()


@dataclass(frozen=True)
class Piece:
    """Bytes of a stream that end with the frame shown at `seconds`."""

    seconds: float
    data: bytes


class _Bytes:
    """What a muxer writes to."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def take(self) -> bytes:
        data, self.data = bytes(self.data), bytearray()
        return data


def pieces(
    n: int,
    rate: int = 5,
    *,
    first: int = 0,
    stamp: float = 0.0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    container: str = "mpegts",
    codec: str = "libx264",
) -> list[Piece]:
    """n frames `picture(first + i)`, stamped from `stamp` seconds on."""
    out, found = _Bytes(), list[Piece]()
    muxer = av.open(out, "w", format=container, options={"flush_packets": "1"})
    options = {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}
    stream: Any = muxer.add_stream(codec, rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", rate
    for i in range(n):
        frame = av.VideoFrame.from_ndarray(picture(first + i, *size), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(stamp * rate) + i, Fraction(1, rate)
        muxer.mux(stream.encode(frame))
        found.append(Piece(i / rate, out.take()))
    muxer.mux(stream.encode(None))
    muxer.close()
    found[-1] = Piece(found[-1].seconds, found[-1].data + out.take())
    return found


def whole(sent: Sequence[Piece]) -> bytes:
    return b"".join(piece.data for piece in sent)


class Station:
    """One client at a time. Sending waits for it."""

    def __init__(self, clock: ManualClock, *, http: bool = False, port: int = 0) -> None:
        self.clock, self._http = clock, http
        self._server = socket.create_server(("127.0.0.1", port))
        self._server.settimeout(LONG)
        self.port = self._server.getsockname()[1]
        self._client: socket.socket | None = None
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"{'http' if self._http else 'tcp'}://127.0.0.1:{self.port}" + ("/cam?key=secret" if self._http else "")

    def accept(self) -> None:
        """Waits for a client; the clock goes on, so that pauses before it end."""
        self._server.settimeout(0.02)
        for _ in range(int(LONG / 0.02)):
            try:
                self._client, _ = self._server.accept()
                break
            except TimeoutError:
                self.clock.forward(0.2)
        assert self._client, "nobody came"
        self._client.setblocking(True)
        if self._http:
            self.requests.append(self._client.recv(4096))
            self._client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")

    def send(self, live: LiveVideo, sent: Sequence[Piece], *, lead: float = LEAD) -> None:
        """All pieces, each when its time has come. A frame is seen when the next one has begun."""
        if self._client is None:
            self.accept()
        assert self._client
        begin, seen = self.clock.now(), end_of(live)
        for piece in sent:
            self.clock.forward(max(0.0, begin + piece.seconds - self.clock.now()))
            if piece.seconds > lead:
                until(lambda at=piece.seconds: end_of(live) >= seen + at - lead, live)
            self._client.sendall(piece.data)

    def hang_up(self) -> None:
        if self._client:
            with suppress(OSError):  # the other side has hung up
                self._client.shutdown(socket.SHUT_RDWR)
            self._client.close()
            self._client = None

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *exc: object) -> None:
        self.hang_up()
        self._server.close()


def end_of(live: LiveVideo) -> float:
    look = live.look()
    return look.end if look else 0.0


def until(wanted: Any, live: LiveVideo | None = None) -> None:
    """Waits until it is so; fails with what ended the watch, and after a minute."""
    deadline = time.monotonic() + LONG
    while not wanted():
        if live:
            live.look()
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@contextmanager
def watched(llm: VisionLLM, url: str, clock: Any, said: list[str] | None = None, **options: Any) -> Iterator[LiveVideo]:
    """size: of the window, default 8 s at 1 frame a second. is_fast: the machine keeps up, whatever the clock says."""
    is_fast = options.pop("is_fast", True)
    size = options.pop("size", WindowSize.of(seconds=8))
    say = said.append if said is not None else (lambda line: None)
    with LiveVideo(llm, parse_source(url), size, say=say, clock=clock, **options) as live:
        if is_fast:
            live._pace.note = lambda seconds: False  # type: ignore[method-assign]
        yield live


def seen(live: LiveVideo) -> Look:
    look = live.look()
    assert look, "nothing was seen yet"
    return look


def codes(source: LiveVideo | Look) -> list[int]:
    """The numbers that `picture` drew into the frames of the window."""
    look = source if isinstance(source, Look) else seen(source)
    height, width = look.item.video.source_size or (HEIGHT, WIDTH)
    return [code_of(np.asarray(Image.fromarray(frame).resize((width, height)))) for frame in look.item.video.frames]


def times(source: LiveVideo | Look) -> list[float]:
    """When they are shown, in the stream's seconds."""
    look = source if isinstance(source, Look) else seen(source)
    return [look.start + seconds for seconds in look.item.video.timestamps.tolist()]
