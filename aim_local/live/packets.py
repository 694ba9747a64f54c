"""Packets between the thread that reads and the one that decodes: never more than a few seconds of them.

Reading must not wait, else the source backs up. Where decoding is slower, it goes on at a later key frame.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from av.packet import Packet
from av.video.stream import VideoStream

MAX_BYTES = 128 << 20
KEY_WAIT = 20.0  # seconds in which a key frame should come


@dataclass(frozen=True, eq=False)
class Arrived:
    """A packet. opening: number of the opening it is from; arrival: of the clock.

    seconds: by which the queue is measured: the arrival, or the stamps of a file, which comes faster than it passes.
    begin: when the opening's first packet is shown. has_stamps: whether the container says when frames are shown.
    """

    packet: Packet[VideoStream]
    stream: VideoStream
    opening: int
    arrival: float
    seconds: float
    begin: float
    has_stamps: bool

    @property
    def is_key(self) -> bool:
        return bool(self.packet.is_keyframe)


class PacketQueue:
    """seconds: at most so long is between the first and the last packet.

    end: nothing is given until `release`, and only what so many last seconds need is kept: of a file that is long
    already, all but the end is of no use. None: all is given as it comes.
    """

    def __init__(self, seconds: float, *, end: float | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._seconds, self._end, self._max_bytes = seconds, end, max_bytes
        self._items: deque[Arrived] = deque()
        self._n_bytes = 0
        self._wants_key: float | None = None  # since the packet of this time, only a key frame is of use
        self._change = threading.Condition()
        self._closed = False
        self._stock, self._is_out = 0, False  # packets that were there at the release; whether one is being decoded
        self.n_skipped = 0  # packets that were dropped because decoding was too slow

    def put(self, item: Arrived) -> None:
        with self._change:
            if not self._is_of_use(item):
                self.n_skipped += 1
                return
            self._items.append(item)
            self._n_bytes += item.packet.size
            if self._end is not None and item.is_key:
                self._keep_end(item.seconds - self._end)
            span = item.seconds - self._items[0].seconds
            if self._n_bytes > self._max_bytes or (self._end is None and span > self._seconds):
                self._skip(item)
            self._change.notify_all()

    def release(self) -> None:
        """All that was there has been read; from now on packets are given as they come."""
        with self._change:
            if self._end is not None and self._items:
                self._stock = len(self._items)
                self._seconds += max(0.0, self._items[-1].seconds - self._items[0].seconds)  # all of it is wanted
            self._end = None
            self._change.notify_all()

    def get(self, wait: float) -> Arrived | None:
        """The next one; None where none came in `wait` seconds, or when it is closed."""
        with self._change:
            self._stock, self._is_out = max(0, self._stock - self._is_out), False
            self._change.wait_for(lambda: self._closed or (self._items and self._end is None), wait)
            if self._closed or self._end is not None or not self._items:
                return None
            item = self._items.popleft()
            self._n_bytes -= item.packet.size
            self._is_out = True
            return item

    @property
    def has_stock(self) -> bool:
        """Whether what a file held at the beginning is still to be read or decoded."""
        with self._change:
            return self._end is not None or self._stock > 0

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._drop(len(self._items))
            self._change.notify_all()

    def _is_of_use(self, item: Arrived) -> bool:
        since = self._wants_key
        # some streams have no key frames: pictures are then renewed part by part
        if since is not None and not item.is_key and 0 <= item.seconds - since < KEY_WAIT:
            return False
        self._wants_key = None
        return True

    def _keep_end(self, begin: float) -> None:
        """Drops what is before the last key frame of `begin` or earlier."""
        keys = [i for i, item in enumerate(self._items) if item.is_key and item.seconds <= begin]
        if keys:
            self._drop(keys[-1])

    def _skip(self, last: Arrived) -> None:
        """Goes on at the last key frame that is here, or at one to come."""
        keys = [i for i, item in enumerate(self._items) if item.is_key and i]
        n = keys[-1] if keys else len(self._items)
        if not keys:
            self._wants_key = last.seconds
        self.n_skipped += n
        self._drop(n)

    def _drop(self, n: int) -> None:
        self._stock = max(0, self._stock - n)
        for _ in range(n):
            self._n_bytes -= self._items.popleft().packet.size
