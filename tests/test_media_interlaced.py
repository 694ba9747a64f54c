"""Interlaced clips: a frame is what FFmpeg's filter makes of it in the whole clip, and its lines are of one moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.context import Flags
from live_case import until
from media_fixtures import RATE, Pixels, decode_all

from aim_local.live.choose import Chooser
from aim_local.live.frames import Decoding, LiveFrame
from aim_local.live.packets import Arrived, PacketQueue
from aim_local.live.timeline import Timeline
from aim_local.media import FrameSampling, outline_media, read_video
from aim_local.media.interlace import NOTE

WIDTH, HEIGHT, N = 96, 64, 12
FIELDS = Flags.interlaced_dct | Flags.interlaced_me
TOP, BOTTOM = 2, 3  # AVFieldOrder


def moment(half_frames: int) -> Pixels:
    """A bar on its way to the right."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    x = half_frames * 4 % (WIDTH - 20)
    pixels[:, x : x + 20] = 220
    return pixels


def woven(top_first: bool = True) -> list[Pixels]:
    """Frames of two moments, the first one in the lines from 0 or from 1."""
    frames = []
    for i in range(N):
        frame, first = moment(2 * i + 1).copy(), 0 if top_first else 1
        frame[first::2] = moment(2 * i)[first::2]
        frames.append(frame)
    return frames


def write(path: Path, frames: list[Pixels], codec: str, **how: Any) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=how.get("options", {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, how.get("pix_fmt", "yuv420p")
        if "order" in how:
            stream.codec_context.field_order = how["order"]
        stream.codec_context.flags |= how.get("flags", 0)
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def filtered(path: Path, set_first: str = "") -> Pixels:
    """Reference: the whole clip through a graph of FFmpeg's, uint8 [n, H, W, 3]."""
    found: list[Pixels] = []
    with av.open(str(path)) as container:
        stream, graph = container.streams.video[0], av.filter.Graph()
        nodes = [graph.add_buffer(template=stream, time_base=stream.time_base)]
        nodes += [graph.add("setfield", set_first)] if set_first else []
        nodes += [graph.add("bwdif", f"0:-1:{0 if set_first else 1}"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    found.append(np.asarray(graph.vpull().to_ndarray(format="rgb24")))
                except (BlockingIOError, EOFError):
                    break
    return np.stack(found)


def comb(frames: Pixels) -> float:
    """How far lines are from the mean of the lines beside them."""
    lines = frames.astype(float)
    return float(np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean())


@pytest.mark.parametrize(
    ("name", "codec", "how", "set_first"),
    [
        ("a.mkv", "libx264", {"options": {"x264-params": "tff=1"}}, ""),
        ("a.mp4", "libx264", {"options": {"x264-params": "bff=1:bframes=2"}, "bottom": True}, ""),
        ("a.ts", "mpeg2video", {"order": TOP, "flags": FIELDS}, ""),
        ("a.mpg", "mpeg2video", {"order": TOP, "flags": FIELDS}, ""),
        ("a.mov", "prores_ks", {"order": TOP, "flags": FIELDS, "pix_fmt": "yuv422p10le"}, ""),
        # only the container says so
        ("said.mkv", "libx264", {"order": TOP}, "tff"),
        ("said.mov", "mjpeg", {"order": BOTTOM, "bottom": True, "pix_fmt": "yuvj420p"}, "bff"),
        ("lossless.mkv", "ffv1", {"order": TOP}, "tff"),
    ],
)
def test_frames_are_those_of_the_filter(
    tmp_path: Path, name: str, codec: str, how: dict[str, Any], set_first: str
) -> None:
    path = write(tmp_path / name, woven(not how.get("bottom")), codec, **how)
    whole = filtered(path, set_first)
    assert len(whole) == N
    for n in (N, 5, 1):
        video = read_video(path, FrameSampling(n))
        assert np.array_equal(video.frames, whole[video.indices]), n
        assert video.timestamps == pytest.approx(video.indices / RATE, abs=1e-3)
        assert video.warnings.count(NOTE) == 1
    assert comb(read_video(path, FrameSampling(N)).frames) < comb(decode_all(path)) / 8
    assert NOTE in outline_media(path, FrameSampling(5)).warnings
    late = read_video(path, FrameSampling(1, start=0.2))
    assert np.array_equal(late.frames[0], whole[late.indices[0]])


def test_a_progressive_clip_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", [moment(2 * i) for i in range(N)], "libx264")
    video = read_video(path, FrameSampling(N))
    assert np.array_equal(video.frames, decode_all(path))
    assert video.warnings == ()


def test_the_lines_of_one_moment_are_those_of_the_progressive_source(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", woven(), "ffv1", order=TOP)
    video = read_video(path, FrameSampling(N))
    source = np.stack([moment(2 * i) for i in range(N)]).astype(int)
    assert np.abs(video.frames[:, ::2] - source[:, ::2]).mean() < 3
    assert np.abs(video.frames - source).mean() < np.abs(decode_all(path) - source).mean() / 3


def test_a_clip_that_becomes_interlaced(tmp_path: Path) -> None:
    """The first frame does not say so."""
    first = write(tmp_path / "a.ts", [moment(2 * i) for i in range(N)], "mpeg2video")
    second = write(tmp_path / "b.ts", woven(), "mpeg2video", order=TOP, flags=FIELDS)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    video = read_video(both, FrameSampling(2 * N))
    assert len(video.frames) == 2 * N
    assert np.array_equal(video.frames[:N], decode_all(first))
    assert comb(video.frames[N:]) < comb(decode_all(second)) / 8
    assert video.warnings.count(NOTE) == 1


@pytest.mark.parametrize(
    ("codec", "how", "set_first"),
    [("libx264", {"options": {"tune": "zerolatency", "x264-params": "tff=1"}}, ""), ("ffv1", {"order": TOP}, "tff")],
)
def test_frames_of_a_live_source(tmp_path: Path, codec: str, how: dict[str, Any], set_first: str) -> None:
    """Each as in the whole clip, but for the last one, which waits for another behind it."""
    path = write(tmp_path / "a.mkv", woven(), codec, **how)
    whole, found, failed = filtered(path, set_first), list[LiveFrame](), list[BaseException]()
    queue = PacketQueue(60)
    decoding = Decoding(
        queue, Timeline(is_paced=False), Chooser(RATE), lambda pixels: pixels, found.append, failed.append
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        for packet in container.demux(stream):
            if packet.size:
                queue.put(Arrived(packet, stream, 1, 0.0, 0.0, 0.0, True))
        until(lambda: failed or decoding.n_frames == N)
        decoding.close()
    assert not failed
    assert np.array_equal(np.stack([frame.pixels for frame in found]), whole[:-1])
