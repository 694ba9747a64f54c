"""A video file opened with PyAV: its main stream, its packets, its frames; damage is counted, never raised.

Knows: PyAV, and why a file may not open. Leaves to others: what the packets mean and which frames are wanted.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import av
from av import VideoFrame
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from aim_local.errors import MediaError
from aim_local.media.files import KNOWN_KINDS
from aim_local.media.joined import Cuts, Spliced

# libav's for one file, nothing beside it: no playlists, image sequences, text renderers or network protocols
FILE_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,rm,ivf,dv,wtv,yuv4mpegpipe,"
    "h264,hevc,m4v,obu,av1,vc1,mjpeg,mp3,wav,flac,aac,ac3,aiff,amr,w64",
}


@dataclass
class Damage:
    """What went wrong in a walk through a file. n_packets: refused by the decoder; cut: reading ended with an error."""

    n_packets: int = 0
    cut: bool = False


@contextmanager
def open_stream(path: Path, cuts: Cuts = ()) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its main video stream, closed on leaving; MediaError where there is none.

    cuts: bytes that are left out, see joined.py.
    """
    given = closing(Spliced(path, cuts)) if cuts else nullcontext(f"file:{path}")
    with given as source, _opened(path, source) as container:
        yield container, main_stream(container, path)


def _opened(path: Path, source: str | Spliced) -> InputContainer:
    try:
        # metadata in another encoding than utf-8 is no reason to refuse the pictures
        options = FILE_OPTIONS | {"correct_ts_overflow": "0"}  # clocks that go round are clock.py's business
        opened: InputContainer = av.open(source, mode="r", options=options, metadata_errors="replace")
        return opened
    except MemoryError:  # PyAV's is an FFmpegError too, and says nothing about the file; as below
        raise
    except (av.FFmpegError, OSError, ValueError) as e:
        raise MediaError(f"{path}: {_why_not(path)}") from e


def packets_of(container: InputContainer, stream: VideoStream, damage: Damage) -> Iterator[Packet[VideoStream]]:
    """The stream's packets in file order, without empty ones (they would drain the decoder)."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except MemoryError:
        raise
    except (av.FFmpegError, OSError):
        damage.cut = True


def decode(stream: VideoStream, packet: Packet[VideoStream] | None, damage: Damage) -> list[VideoFrame]:
    """Frames that `packet` completes (None: all the decoder still holds); none where it reports damage.

    Raises MemoryError where there is no room for the decoder, which is no damage: also BlockingIOError, the system's
    word for threads that it has no room to start.
    """
    try:
        return [frame for frame in stream.decode(packet) if not frame.is_corrupt]
    except (MemoryError, BlockingIOError) as e:
        raise MemoryError("no room for the video decoder and its threads") from e
    except (av.FFmpegError, OSError):
        damage.n_packets += 1
        return []


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


def _why_not(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as e:
        return f"cannot be read any more ({e.strerror or e})"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "is an MP4/MOV file without a usable index (cut off or damaged); copy or download it again"
    if _is_text(head):
        return f"holds text, not a video or image; give one of: {KNOWN_KINDS}"
    return f"is not a video or image this program reads, or is damaged; give one of: {KNOWN_KINDS}"


def _is_text(head: bytes) -> bool:
    try:
        # incremental: the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\n\r\t\f" for c in text)
