"""Memory that reading an item takes beside what is kept of it: the decoder's own frames, and copies on the way.

Counted from sizes, with factors that were measured (`python benchmarks/decode_memory.py` prints them anew).
"""

from __future__ import annotations

import av

from aim_local.media.container import n_threads
from aim_local.media.pictures import STRIP

# bytes a pixel of a still picture while it is decoded and fitted, its 3 bytes as it is kept included
_STILL, _STILLS = 7.2, {"WEBP": 15.8, "AVIF": 9.3, "JPEG2000": 19.5, "QOI": 12.0}
_CONVERTING = 19.0  # of one strip's pixels, with transparency
# of an animated one, of whose frames the decoder keeps several
_ANIMATED = {"GIF": 17.0, "PNG": 21.0, "WEBP": 27.0, "AVIF": 20.0}
_CONVERTED = 10.0  # of a video's frame: as RGB, as an array, and in the form that it is resized in
# frames that a decoder holds beside one for each of its threads: references, and those that wait to be shown
_HELD, _HELD_BY = 8, {"hevc": 10, "libdav1d": 13, "av1": 13, "vp9": 4, "vp8": 4, "mpeg4": 3, "mpeg2video": 3}
_WHOLE = frozenset({"mjpeg", "rawvideo", "prores", "dnxhd", "png", "ffv1"})  # every frame stands for itself
_PACKET = 300  # of a clip's index


def still_bytes(format: str, height: int, width: int) -> int:
    """format: Pillow's name of it."""
    n_pixels = height * width
    return int((_STILLS.get(format, _STILL) - 3) * n_pixels + _CONVERTING * min(n_pixels, STRIP))


def animation_bytes(format: str, height: int, width: int) -> int:
    return int(_ANIMATED[format] * height * width)


def clip_bytes(codec: str, pixel_format: str, height: int, width: int, n_packets: int) -> int:
    """codec, pixel_format: FFmpeg's names."""
    frame = av.VideoFormat(pixel_format, width, height).padded_bits_per_pixel / 8
    threads = n_threads(height, width)
    held = 1 + threads if codec in _WHOLE else _HELD_BY.get(codec, _HELD) + threads
    return int((frame * held + _CONVERTED) * height * width) + _PACKET * n_packets
