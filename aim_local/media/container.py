"""A video file opened with PyAV: its main stream, its packets, its frames; damage is counted, never raised.

Knows: PyAV, and why a file may not open. Leaves to others: what the packets mean and which frames are wanted.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from aim_local.errors import MediaBudgetError, MediaError, MediaMemoryError
from aim_local.media.budget import MAX_PACKETS, check_frame
from aim_local.media.claims import check_index
from aim_local.media.ends import is_transport_stream, n_missing_bytes
from aim_local.media.foreign import no_memory, reason
from aim_local.media.joined import Cuts, Spliced
from aim_local.media.other_files import HEAD, is_guessed, other_kind, why_not

# libav's for one file, nothing beside it: no playlists, image sequences, text renderers or network protocols
FILE_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,rm,ivf,dv,wtv,yuv4mpegpipe,"
    "h264,hevc,m4v,obu,av1,vc1,mjpeg,mp3,wav,flac,aac,ac3,aiff,amr,w64",
}


# a frame that is larger than the file's head says is damage, unless it is no larger than this: some streams change size
_GROWTH_PIXELS = 2**24
_NO_MEMORY = "no memory for the video decoder and its threads"
_SPARE = 64 << 20  # bytes
_MARGIN = 128  # pixels that codecs round sides up to
_THREAD_BYTES = 512 << 20  # of frames that the decoder's threads work on at the same time
_MOST_THREADS = 16  # FFmpeg's own bound


@dataclass
class Damage:
    """What went wrong in a walk through a file.

    n_packets: refused by the decoder; n_concealed: frames that it made up in part; cut: reading ended with an error.
    """

    n_packets: int = 0
    n_concealed: int = 0
    cut: bool = False


@contextmanager
def open_stream(path: Path, max_pixels: int, cuts: Cuts = ()) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its main video stream, closed on leaving.

    Raises MediaError where there is none, MediaBudgetError for frames of more than max_pixels.

    cuts: bytes that are left out, see joined.py.
    """
    if other := other_kind(_head(path)):
        raise MediaError(f"{path}: {other}")
    check_index(path)
    given = closing(Spliced(path, cuts)) if cuts else nullcontext(f"file:{path}")
    with given as source, _opened(path, source, max_pixels) as container:
        if is_guessed(_head(path), container.format.name) or _has_no_index(container, path):
            raise MediaError(f"{path}: {why_not(_head(path))}")
        stream = main_stream(container, path)
        prepare(stream, path, max_pixels)
        yield container, stream


def _opened(path: Path, source: str | Spliced, max_pixels: int) -> InputContainer:
    options = FILE_OPTIONS | {"max_pixels": str(max(max_pixels, _GROWTH_PIXELS))}
    options["correct_ts_overflow"] = "0"  # clocks that go round are clock.py's business
    try:
        # FFmpeg does not believe in a transport stream of few packets
        format = "mpegts" if is_transport_stream(_head(path)) else None
        # metadata in another encoding than utf-8 is no reason to refuse the pictures
        opened: InputContainer = av.open(source, mode="r", format=format, options=options, metadata_errors="replace")
        return opened
    except MemoryError as e:  # PyAV's is an FFmpegError too
        raise no_memory(path) from e
    except Exception as e:
        raise MediaError(f"{path}: {why_not(_head(path))}") from e


def prepare(stream: VideoStream, name: Path | str, max_pixels: int) -> None:
    """Before the first packet: bounds pixels of a frame, also of one that grows on the way, and threads for large ones.

    Raises MediaBudgetError.
    """
    codec = stream.codec_context
    check_frame(name, f"a video ({codec.name}) with frames", codec.height, codec.width, max_pixels)
    coded = (codec.width + _MARGIN) * (codec.height + _MARGIN)
    codec.options = {"max_pixels": str(max(coded, _GROWTH_PIXELS))}
    codec.thread_count = n_threads(codec.height, codec.width)


def n_threads(height: int, width: int) -> int:
    """Of the decoder for frames of this size: what FFmpeg takes by itself, fewer for very large ones."""
    usual = min((os.cpu_count() or 1) + 1, _MOST_THREADS)
    return max(1, min(usual, _THREAD_BYTES // max(1, 3 * height * width)))


def packets_of(container: InputContainer, stream: VideoStream, damage: Damage) -> Iterator[Packet[VideoStream]]:
    """The stream's packets in file order, without empty ones (they would drain the decoder).

    Raises MediaBudgetError behind MAX_PACKETS of them.
    """
    packets, n = iter(container.demux(stream)), 0
    while packet := _next(packets, damage):
        if packet.size:
            n += 1
            if n > MAX_PACKETS:
                raise MediaBudgetError(
                    f"{container.name}: holds more than {MAX_PACKETS:,} packets of video, at most so many are allowed;"
                    " cut it into shorter clips"
                )
            yield packet


def _next(packets: Iterator[Packet[VideoStream]], damage: Damage) -> Packet[VideoStream] | None:
    """None behind the last one that can be read."""
    try:
        return next(packets, None)
    except MemoryError as e:
        raise MediaMemoryError("no memory to read the video's packets") from e
    except Exception:
        damage.cut = True
        return None


def decode(stream: VideoStream, packet: Packet[VideoStream] | None, damage: Damage) -> list[VideoFrame]:
    """Frames that `packet` completes (None: all the decoder still holds), without those that it made up in part; none
    where it reports damage.

    Raises MediaMemoryError where there is no room for the decoder, which is no damage: also BlockingIOError, the
    system's word for threads that it has no room to start.
    """
    try:
        frames = stream.decode(packet)
        sound = [frame for frame in frames if not frame.is_corrupt]
        damage.n_concealed += len(frames) - len(sound)
        return sound
    except BlockingIOError as e:
        raise MediaMemoryError(_NO_MEMORY) from e
    except MemoryError as e:
        if not _has_memory(16 * stream.codec_context.height * stream.codec_context.width + _SPARE):
            raise MediaMemoryError(_NO_MEMORY) from e
    except Exception:  # told apart by nobody: damage
        pass
    damage.n_packets += 1
    return []


def _has_memory(n_bytes: int) -> bool:
    """FFmpeg says that there is no memory where a damaged packet claims a frame beyond its bounds, too."""
    try:
        np.empty(n_bytes, np.uint8)
    except MemoryError:
        return False
    return True


def all_frames(container: InputContainer, stream: VideoStream, damage: Damage, begin: int = 0) -> Iterator[VideoFrame]:
    """Every frame that can be decoded, in display order. begin: the packet to start with."""
    stream.thread_type = "AUTO"
    for packet in itertools.islice(packets_of(container, stream, damage), begin, None):
        yield from decode(stream, packet, damage)
    yield from decode(stream, None, damage)


def main_stream(container: InputContainer, name: Path | str) -> VideoStream:
    """The stream that is watched, told in errors by `name`. Raises MediaError where there is none."""
    # cover art of a song is a video stream of one picture
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if container.streams.audio:
            codec = container.streams.audio[0].codec_context.name
            raise MediaError(f"{name}: holds sound only ({codec}), no pictures; give a video or an image")
        raise MediaError(f"{name}: holds no video track; give a video or an image")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if stream.codec_context is None:
        raise MediaError(f"{name}: its video codec is unknown here; convert it to H.264, H.265, VP9 or AV1")
    return stream


def _has_no_index(container: InputContainer, path: Path) -> bool:
    """Of an MP4 that is cut off before its end: FFmpeg opens such a file if it is short."""
    has_any = container.streams.video or container.streams.audio
    return "mov" in container.format.name.split(",") and not has_any and n_missing_bytes(path, ("mov",)) > 0


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as e:
        raise MediaError(f"{path}: cannot be read any more ({reason(e)}); check the disk and permissions") from e
