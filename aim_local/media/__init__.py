"""Videos and images in, sampled uint8 RGB frames with timestamps out.

Knows: files, containers and codecs (PyAV: its wheels bundle FFmpeg, so no ffmpeg binary is needed; timestamps are
exact) and pictures (Pillow). Leaves to others: patches, normalisation, tokens and all that a model does with frames.
"""

from aim_local.media.reader import open_media, probe_video, read_image, read_video
from aim_local.media.sampling import sample_times
from aim_local.media.types import DEFAULT_SAMPLING, FrameSampling, Image, Video, VideoInfo

__all__ = [
    "DEFAULT_SAMPLING",
    "FrameSampling",
    "Image",
    "Video",
    "VideoInfo",
    "open_media",
    "probe_video",
    "read_image",
    "read_video",
    "sample_times",
]
