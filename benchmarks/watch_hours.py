"""Hours of a stream in minutes, through the whole of `watch`: memory over time, times of frames, a cut in the middle.

A process of its own sends MPEG-TS over TCP on loopback, as fast as its clock goes (--speed times the time): small
pictures into which their number is drawn. Here they are read, decoded, encoded by the bundled model and asked about
once a minute of stream. In the middle the sender hangs up for --away seconds; then its stamps begin again. Every window
is checked: the numbers in its frames must be as far apart as their times say. The first tenth warms up; what is held
then is what the end is compared with.

    python benchmarks/watch_hours.py [--hours 2] [--speed 60] [--away 90]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import os
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aim_local import GenerateConfig, VisionLLM
from aim_local.errors import MediaError
from aim_local.lab.measure import machine
from aim_local.live import FastClock, LiveVideo, Look, WindowSize, watch

RATE, WIDTH, HEIGHT, BITS, SIDE = 5, 96, 64, 12, 16
MIB = 2**20
QUESTION = "What appears in the middle?"


def picture(number: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] with the number's bits as squares, and some movement below."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            y, x = bit // 6 * SIDE, bit % 6 * SIDE
            pixels[y : y + SIDE, x : x + SIDE] = 220
    x = number * 7 % (WIDTH - 10)
    pixels[2 * SIDE :, x : x + 10] = 255, 0, 0
    return pixels


def number_in(fitted: NDArray[np.uint8]) -> int:
    pixels = np.asarray(Image.fromarray(fitted).resize((WIDTH, HEIGHT)))
    corners = [(bit // 6 * SIDE, bit % 6 * SIDE) for bit in range(BITS)]
    return sum(int(pixels[y + 4 : y + 12, x + 4 : x + 12].mean() > 128) << i for i, (y, x) in enumerate(corners))


# --- the sender -------------------------------------------------------------------------------------------------------


class Out:
    """What a muxer writes to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)


def send(server: socket.socket, speed: float, seconds: float, away: float) -> None:
    """Two halves, each to a client of its own."""
    first = 0
    for half in range(2):
        connection, _ = server.accept()
        first = send_half(connection, speed, seconds / 2, first)
        connection.close()
        if not half:
            time.sleep(away / speed)


def send_half(connection: socket.socket, speed: float, seconds: float, first: int) -> int:
    """Returns the number of the frame that is next."""
    options = {"preset": "ultrafast", "tune": "zerolatency"}
    with av.open(Out(connection), "w", format="mpegts", options={"flush_packets": "1"}) as muxer:
        stream: Any = muxer.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", 2 * RATE
        start, n = time.monotonic(), int(seconds * RATE)
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(picture((first + i) % 2**BITS), format="rgb24").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            muxer.mux(stream.encode(frame))
            time.sleep(max(0.0, start + i / RATE / speed - time.monotonic()))
        muxer.mux(stream.encode(None))
    return first + n


# --- what is looked at ------------------------------------------------------------------------------------------------


class MallocInfo(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    )  # fmt: skip


def heap_bytes() -> int:
    """That malloc has given out, of all threads."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = MallocInfo
    found = libc.mallinfo2()
    return int(found.uordblks + found.hblkhd)


@dataclass(frozen=True)
class Held:
    """resident: bytes of the process's own memory; heap: of them in use by malloc; blocks: by Python's allocator.

    What is resident grows until each thread's part of the heap is as large as it ever needs; what is in use must not.
    """

    resident: int
    heap: int
    blocks: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        resident = int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]
        return cls(resident, heap_bytes(), sys.getallocatedblocks(), threading.active_count())

    def line(self) -> str:
        own = f"resident {self.resident / MIB:6.1f} MiB, heap {self.heap / MIB:7.2f} MiB"
        return f"{own}, {self.blocks} blocks, {self.threads} threads"


def wrong_times(look: Look) -> int:
    """Frames whose number is not as far from the first one's as their time says; across the cut nothing is said."""
    numbers = [number_in(frame) for frame in look.item.video.frames]
    steps = np.diff(numbers) % 2**BITS
    passed = np.diff(look.item.video.timestamps)
    across = passed > 30
    return int((~across & (np.abs(steps - passed * RATE) > 0.5)).sum())


def run(options: argparse.Namespace) -> int:
    seconds, speed = options.hours * 3600, options.speed
    server = socket.create_server(("127.0.0.1", 0))
    sender = multiprocessing.get_context("fork").Process(target=send, args=(server, speed, seconds, options.away))
    sender.start()
    address, clock = f"tcp://127.0.0.1:{server.getsockname()[1]}", FastClock(speed)
    server.close()
    with VisionLLM.load() as llm:
        said = list[str]()
        size = WindowSize.of(seconds=30)
        with watch(llm, address, size, give_up=4 * options.away, say=said.append, clock=clock) as live:
            found = look_on(llm, live, clock, seconds)
    sender.join()
    print("\n".join(f"said: {line}" for line in said))
    return found


def look_on(llm: VisionLLM, live: LiveVideo, clock: FastClock, seconds: float) -> int:
    """Prints memory about twelve times; returns 1 where a time was wrong."""
    start, short = clock.now(), GenerateConfig(max_tokens=8)
    n_looks, n_wrong, oldest, warm, held = 0, 0, 0.0, None, None
    next_line, end = 0.0, 0.0
    try:
        for look in live.every(60):
            llm.generate(QUESTION, [look.item], generate=short)
            n_looks, n_wrong, oldest = n_looks + 1, n_wrong + wrong_times(look), max(oldest, look.age)
            end = look.end
            if look.end >= next_line:
                held = Held.now()
                print(f"{look.end / 3600:6.2f} h  {held.line()}  window {look.start:.1f}-{look.end:.1f} s", flush=True)
                next_line = look.end + seconds / 12
                warm = held if look.end >= seconds / 10 and warm is None else warm
    except MediaError as e:
        print(f"ended: {e}")
    assert warm, "too short to warm up"
    assert held, "looked at"
    print(f"{n_looks} windows asked about, {n_wrong} wrong times, newest frame at most {oldest:.1f} s old when asked")
    print(f"last frame at {end:.1f} s of the watch, which took {clock.now() - start:.0f} s of its clock")
    grown = (held.resident - warm.resident) / MIB, (held.heap - warm.heap) / MIB, held.blocks - warm.blocks
    print(f"since the first tenth: resident {grown[0]:+.1f} MiB, heap {grown[1]:+.2f} MiB, {grown[2]:+d} blocks")
    return int(n_wrong > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="of stream")
    parser.add_argument("--speed", type=float, default=60.0, help="how many times as fast as the time")
    parser.add_argument("--away", type=float, default=90.0, help="seconds of stream without a sender")
    options = parser.parse_args()
    print(f"{machine()}, {os.cpu_count()} cores\n{options.hours:g} h at {options.speed:g} times the time")
    sys.exit(run(options))


if __name__ == "__main__":
    main()
