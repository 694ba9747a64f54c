"""Whether a JPEG's coded pixels are damaged inside: libjpeg goes on with whatever it reads, and Pillow does not hear.

FFmpeg's decoder, asked to stop at errors, finds codes that cannot be. It finds nothing where the codes happen to make
sense, and knows fewer kinds of JPEG: what it does not read at all tells nothing. Leaves to others: pixels that are
missing (jpeg_data.py).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import av

from aim_local.media.jpeg_scans import EOI, SOS, Segment

_STRICT = {"err_detect": "bitstream+buffer+explode"}
_TEXTS = frozenset({*range(0xE1, 0xEE), 0xFE})  # metadata of programs, and comments: FFmpeg reads some of them


def is_damaged_inside(data: bytes | mmap.mmap, parts: Sequence[Segment]) -> bool:
    """Whether it is known to be. parts: segments of the file's first picture."""
    if not parts or parts[-1].kind != EOI:
        return False
    picture = _without_texts(data, parts)
    return not _is_decoded(picture, _STRICT) and _is_decoded(picture, {})


def _without_texts(data: bytes | mmap.mmap, parts: Sequence[Segment]) -> bytes:
    begin = next((part.start for part in parts if part.kind == SOS), parts[-1].start)
    head = [data[part.start : part.end] for part in parts if part.start < begin and part.kind not in _TEXTS]
    return b"".join((data[:2], *head, data[begin : parts[-1].end]))


def _is_decoded(picture: bytes, options: dict[str, str]) -> bool:
    """Raises MemoryError."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options, decoder.thread_count = options, 1
    try:
        return any(not frame.is_corrupt for frame in decoder.decode(av.Packet(picture)))
    except MemoryError:
        raise
    except av.FFmpegError:
        return False
