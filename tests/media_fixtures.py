"""Small real media files for tests, written with PyAV and Pillow.

Knows: how to make clips whose frames tell their own index, and how to damage files. Leaves to others: what to test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

RATE = 25
BLOCK, ROWS, COLS = 16, 2, 5  # ten bits, drawn as blocks large enough to survive any codec

X264_OPEN_GOP = {"x264-params": "bframes=3:b-pyramid=normal:keyint=15:open-gop=1:scenecut=0"}
X265_OPEN_GOP = {"x265-params": "log-level=none:keyint=15:open-gop=1:bframes=3:scenecut=0"}
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "8"}

# name -> how `write_clip` writes it; the fixture `clip_of` makes them
CLIPS: dict[str, dict[str, Any]] = {
    "open-gop.mp4": {"options": X264_OPEN_GOP, "n_frames": 120},
    "open-gop-hevc.mp4": {"codec": "libx265", "options": X265_OPEN_GOP, "n_frames": 90},
    "closed-gop.mkv": {"b_frames": 2, "gop": 15, "n_frames": 120},
    "intra-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}, "n_frames": 90},
    "vp8.webm": {"codec": "libvpx", "gop": 20, "options": {"deadline": "realtime", "cpu-used": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 20, "options": FAST_VP9, "n_frames": 90},
    "stream.ts": {"b_frames": 2, "gop": 15, "n_frames": 90},
    "flash.flv": {"codec": "flv", "gop": 15},
    "pictures.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264-b-frames.avi": {"b_frames": 2},
    "mpeg4-b-frames.avi": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "raw.h264": {"container_format": "h264"},
    "windows.wmv": {"codec": "wmv2"},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "ten-bit-lossless.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p10le", "n_frames": 20},
    "odd-size.mp4": {"size": (97, 65), "pix_fmt": "yuv444p"},
    "odd-size-subsampled.mkv": {"codec": "ffv1", "size": (101, 67), "n_frames": 20},
}


def picture(index: int, width: int = 96, height: int = 64) -> Pixels:
    """uint8 [H, W, 3]: the index in binary at the top left, a moving red bar below."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    for bit in range(ROWS * COLS):
        if index >> bit & 1:
            y, x = (bit // COLS) * BLOCK, (bit % COLS) * BLOCK
            pixels[y : y + BLOCK, x : x + BLOCK] = 220
    x = (index * 7) % (width - 10)
    pixels[ROWS * BLOCK + 8 :, x : x + 10] = (255, 0, 0)
    return pixels


def code_of(pixels: Pixels) -> int:
    """The index that `picture` drew."""
    code = 0
    for bit in range(ROWS * COLS):
        y, x = (bit // COLS) * BLOCK, (bit % COLS) * BLOCK
        code |= int(pixels[y + 4 : y + 12, x + 4 : x + 12].mean() > 128) << bit
    return code


def codes_of(frames: Pixels) -> list[int]:
    return [code_of(frame) for frame in frames]


@contextmanager
def usual_priority() -> Iterator[None]:
    """SVT-AV1's encoder makes the thread that opens it a real-time one, where it may; it is what it was afterwards."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_clip(
    path: Path,
    n_frames: int = 60,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    pix_fmt: str = "yuv420p",
    gop: int = 20,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    pictures: Sequence[Pixels] | None = None,
    ticks: Sequence[int] | None = None,
    ticks_per_second: int = RATE,
    aspect: Fraction | None = None,
) -> Path:
    """Frames `picture(i)` (or `pictures`), frame i shown at ticks[i] / ticks_per_second. size: (width, height)."""
    made = {"format": container_format, "options": container_options or {}}
    with usual_priority(), av.open(str(path), "w", **made) as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = pix_fmt, gop
        stream.codec_context.time_base = Fraction(1, ticks_per_second)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if b_frames is not None:
            stream.max_b_frames = b_frames
        if rotation is not None or hflip:
            stream.set_display_rotation(rotation or 0, hflip=hflip)
        for i in range(n_frames):
            pixels = pictures[i] if pictures is not None else picture(i, *size)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=pix_fmt)
            frame.pts = ticks[i] if ticks is not None else i * ticks_per_second // RATE
            frame.time_base = Fraction(1, ticks_per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_two_sizes(folder: Path) -> Path:
    """A raw stream of 10 frames of 96 x 64, then 10 of 192 x 128."""
    small = write_clip(folder / "small.h264", n_frames=10, container_format="h264")
    large = write_clip(folder / "large.h264", n_frames=10, size=(192, 128), container_format="h264")
    both = folder / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    return both


def write_sound(path: Path, seconds: float = 0.5, cover: Pixels | None = None) -> Path:
    """An audio file, with cover art where asked for."""
    rate = 16000
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=rate, layout="mono")
        art: Any = None
        if cover is not None:
            art = container.add_stream("mjpeg", rate=1)
            art.height, art.width = cover.shape[:2]
            art.pix_fmt, art.disposition = "yuvj420p", av.stream.Disposition.attached_pic
        samples = (np.sin(np.arange(int(rate * seconds)) / 20) * 9000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        if cover is not None:
            container.mux(art.encode(av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")))
            container.mux(art.encode(None))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_animation(path: Path, n_frames: int = 10, delays: Sequence[int] | None = None) -> Path:
    """GIF, WebP or APNG by suffix; delays in milliseconds."""
    images = [PIL.Image.fromarray(picture(i)) for i in range(n_frames)]
    delay = list(delays) if delays is not None else [100] * n_frames
    images[0].save(path, save_all=True, append_images=images[1:], duration=delay, lossless=True)
    return path


def cut(source: Path, target: Path, share: float) -> Path:
    """The first `share` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def damage_packets(source: Path, target: Path, packets: Sequence[int]) -> list[int]:
    """Overwrite the packets (numbers in file order) with noise; returns the display indices of the frames they hold."""
    data = bytearray(source.read_bytes())
    rng = np.random.default_rng(0)
    with av.open(str(source)) as container:
        rows = [(p.pos, p.size, p.pts) for p in container.demux(container.streams.video[0]) if p.size]
    order = sorted(pts for _, _, pts in rows if pts is not None)
    hit = []
    for number in packets:
        pos, size, pts = rows[number]
        assert pos is not None
        assert pts is not None
        data[pos : pos + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        hit.append(order.index(pts))
    target.write_bytes(data)
    return hit


def hide_vp8_packet(source: Path, target: Path, number: int) -> Path:
    """Clear show_frame in one packet, as encoders do for their alternate reference frames."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        payloads = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]
    at = data.find(payloads[number])
    assert at > 0
    data[at] &= ~0x10
    target.write_bytes(data)
    return target


def decode_all(path: Path) -> Pixels:
    """Reference: every frame, decoded in order, uint8 [n, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def join(target: Path, *parts: Path) -> Path:
    """Files one behind the other, as `cat` does it."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def cut_ts(source: Path, target: Path, packets: int) -> Path:
    """A transport stream without its first packets, of 188 bytes each."""
    target.write_bytes(source.read_bytes()[188 * packets :])
    return target


def restamp_ts(source: Path, target: Path, change: Callable[[int], int | None]) -> Path:
    """A transport stream with other stamps: change(number of the picture in file order) is added to its PTS and DTS.

    Ticks of 90 kHz, modulo 2^33; None takes the stamps away. The pictures are in PID 256, as FFmpeg writes them.
    """
    data, number = bytearray(source.read_bytes()), 0
    for at in range(0, len(data), 188):
        begins, pid = data[at + 1] & 0x40, (data[at + 1] & 31) << 8 | data[at + 2]
        if pid != 256 or not begins:
            continue
        head = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        assert data[head : head + 3] == b"\0\0\1"
        n_stamps, added = {2: 1, 3: 2}.get(data[head + 7] >> 6, 0), change(number)
        if added is None:
            data[head + 7] &= 0x3F
            data[head + 9 : head + 9 + data[head + 8]] = b"\xff" * data[head + 8]
        else:
            for place in range(head + 9, head + 9 + 5 * n_stamps, 5):
                _add_to_stamp(data, place, added)
        number += 1
    target.write_bytes(data)
    return target


def _add_to_stamp(data: bytearray, at: int, added: int) -> None:
    old = (data[at] >> 1 & 7) << 30 | data[at + 1] << 22 | data[at + 2] >> 1 << 15
    old |= data[at + 3] << 7 | data[at + 4] >> 1
    new = (old + added) % 2**33
    data[at] = data[at] & 0xF0 | new >> 29 & 0xE | 1
    data[at + 1], data[at + 2] = new >> 22 & 0xFF, new >> 14 & 0xFE | 1
    data[at + 3], data[at + 4] = new >> 7 & 0xFF, new << 1 & 0xFE | 1
