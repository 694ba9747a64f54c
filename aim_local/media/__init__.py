"""Videos and images in, sampled uint8 RGB frames with timestamps out.

Knows: files, containers and codecs (PyAV: its wheels bundle FFmpeg, so no ffmpeg binary is needed; timestamps are
exact) and pictures (Pillow). Leaves to others: patches, normalisation, tokens and all that a model does with frames.
"""

from aim_local.media.canvas import Fit
from aim_local.media.outline import Outline, outline_media
from aim_local.media.reader import open_media, probe_video, read_image, read_video
from aim_local.media.sampling import sample_times
from aim_local.media.shape import MediaShape
from aim_local.media.types import DEFAULT_SAMPLING, FrameSampling, Image, Video, VideoInfo

__all__ = [
    "DEFAULT_SAMPLING",
    "Fit",
    "FrameSampling",
    "Image",
    "MediaShape",
    "Outline",
    "Video",
    "VideoInfo",
    "open_media",
    "outline_media",
    "probe_video",
    "read_image",
    "read_video",
    "sample_times",
]
