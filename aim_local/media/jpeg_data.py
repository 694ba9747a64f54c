"""Whether a JPEG's pixels are all in the file: libjpeg takes what is missing before a marker for zeros.

What it says of that, Pillow does not hear. Bytes that are put before each marker are never looked at in a whole
picture, and are made pixels of where some are missing. Knows restarts and what a scan covers (ITU-T T.81). Leaves to
others: decoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from aim_local.media.jpeg_scans import DRI, EOI, FRAMES, RESTARTS, SOS, Segment

_PUT = bytes.fromhex("a55a3cc3966996f0") * 2
_BLOCK = 8  # pixels


def with_more(data: bytes | mmap.mmap, parts: Sequence[Segment]) -> bytes | None:
    """The file's first picture with bytes put before each marker that ends coded pixels. parts: its segments.

    None where that tells nothing: without an end (which Pillow tells), or not coded by Huffman's codes.
    """
    pieces, at, is_coded, is_known = list[bytes](), 0, False, False
    for segment in parts:
        if is_coded:
            pieces += (data[at : segment.start], _PUT)
            at = segment.start
        if segment.kind == EOI and is_known:
            return b"".join((*pieces, data[at : segment.end]))
        is_known = is_known or segment.kind in FRAMES
        is_coded = segment.kind == SOS or (is_coded and segment.kind in RESTARTS)
    return None


def lacks_restarts(parts: Sequence[Segment]) -> bool:
    """Whether pixels between two restarts are missing as a whole. parts: segments of a picture."""
    frame, interval, n_missing = b"", 0, 0
    for segment in parts:
        if segment.kind in FRAMES:
            frame = segment.body
        elif segment.kind == DRI:
            interval = int.from_bytes(segment.body[:2], "big")
        if segment.kind in RESTARTS:
            n_missing -= 1
        elif n_missing > 0:
            return True
        elif segment.kind == SOS and frame and interval:
            n_missing = -(-_n_units(frame, segment) // interval) - 1
    return False


def _n_units(frame: bytes, scan: Segment) -> int:
    """Units of a scan, so many of which are between two restarts; 0 where it cannot be told."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    factors = {number: divmod(factor, 16) for number, factor in zip(frame[6::3], frame[7::3], strict=False)}
    named = scan.body[1 : 1 + 2 * scan.body[0] : 2] if scan.body else b""
    if not factors or not set(named) <= set(factors) or not all(h and v for h, v in factors.values()):
        return 0
    most_x, most_y = (max(factor[axis] for factor in factors.values()) for axis in (0, 1))
    of_x, of_y = factors[named[0]] if len(named) == 1 else (1, 1)
    return _n_blocks(width * of_x, most_x) * _n_blocks(height * of_y, most_y)


def _n_blocks(pixels: int, most: int) -> int:
    return -(-pixels // (_BLOCK * most))
