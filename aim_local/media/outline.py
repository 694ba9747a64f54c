"""A media item without its pixels: sizes, times, and how much a reader will have to decode.

Knows: what `open_media` would give for an item. Leaves to others: reading it. Of a still picture only the header is
read, so that damage behind it shows when the picture is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aim_local.config import MAX_PIXELS
from aim_local.media import pictures
from aim_local.media.arrays import as_frames
from aim_local.media.budget import check_decoded
from aim_local.media.decode import count_decoded
from aim_local.media.decode_memory import animation_bytes, clip_bytes, still_bytes
from aim_local.media.files import check_file
from aim_local.media.given import MediaItem
from aim_local.media.index import Clip, index_video
from aim_local.media.reader import check_item
from aim_local.media.sampling import SamplePlan, plan_samples
from aim_local.media.seek import plan_segments
from aim_local.media.shape import MediaShape
from aim_local.media.types import DEFAULT_SAMPLING, FrameSampling, VideoInfo


@dataclass(frozen=True)
class Outline:
    """What reading an item will give, and cost.

    shape:           that of the item `open_media` gives, damaged frames counted in, without a digest
    n_file_bytes:    of the file, 0 for an array
    n_packets:       of a video's index, frames of an animated picture, 0 for a still and an array
    n_decoded:       frames that must be decoded for the chosen ones, 0 for an array
    n_source_frames: of the whole clip, 1 for an image
    warnings:        those known before pixels are read
    n_counted:       of n_decoded, those that only say how many frames the clip has, decoded while it is opened
    n_jumps:         places that the decoder jumps to, the beginning not counted
    n_decoder_bytes: memory that reading takes at most, beside what is kept (decode_memory.py); 0 for an array
    """

    shape: MediaShape
    n_file_bytes: int
    n_packets: int
    n_decoded: int
    n_source_frames: int
    warnings: tuple[str, ...]
    n_counted: int = 0
    n_jumps: int = 0
    n_decoder_bytes: int = 0

    @property
    def n_pictures(self) -> int:
        """Frames of a video, 1 for an image."""
        return self.shape.n_frames

    @property
    def height(self) -> int:
        """Pixels of one decoded picture as displayed: rotation applied, nothing fitted."""
        return self.shape.height

    @property
    def width(self) -> int:
        """As `height`."""
        return self.shape.width


@dataclass(frozen=True, eq=False)
class Indexed:
    """An item that was looked at once, for outlines of several samplings. `index_media` makes it.

    path:  None for an array
    clip:  of a video file, else None
    info:  of a video file or an animated picture, else None
    """

    item: MediaItem
    path: Path | None
    kind: pictures.PictureKind | None
    clip: Clip | None
    info: VideoInfo | None
    max_pixels: int = MAX_PIXELS

    def outline(self, sampling: FrameSampling = DEFAULT_SAMPLING) -> Outline:
        """What `open_media(item, sampling)` will give. Raises MediaError, UsageError."""
        if isinstance(self.item, np.ndarray):
            return _outline_of_array(self.item, sampling)
        assert self.path is not None, "a file has a path"
        if self.info is None:
            assert self.kind is not None, "a file without frames is a picture"
            return _outline_of_still(self.path, self.kind)
        chosen = plan_samples(self.info, sampling)
        if self.clip is not None:
            check_decoded(
                self.path, count_decoded(self.clip, chosen.indices), self.info.height, self.info.width, self.max_pixels
            )
            return _outline_of_clip(self.path, self.clip, chosen)
        found = _outline_of_frames(self.path, self.info, chosen, self.info.n_frames, len(chosen.indices))
        assert self.kind is not None, "of an animated picture"
        return replace(found, n_decoder_bytes=animation_bytes(self.kind.format, found.height, found.width))


def index_media(item: MediaItem, max_pixels: int = MAX_PIXELS) -> Indexed:
    """Reads the head of an item, of a video its packets. Raises MediaError, UsageError."""
    check_item(item)
    if isinstance(item, np.ndarray):
        return Indexed(item, None, None, None, None)
    path = check_file(item)
    kind = pictures.picture_kind(path, max_pixels)
    if kind is None:
        clip = index_video(path, max_pixels)
        return Indexed(item, path, None, clip, clip.info, max_pixels)
    return Indexed(item, path, kind, None, pictures.animation_info(path, kind) if kind.animated else None, max_pixels)


def outline_media(item: MediaItem, sampling: FrameSampling = DEFAULT_SAMPLING, max_pixels: int = MAX_PIXELS) -> Outline:
    """What `open_media(item, sampling, max_pixels=max_pixels)` will give. Raises MediaError, UsageError."""
    return index_media(item, max_pixels).outline(sampling)


def _outline_of_clip(path: Path, clip: Clip, chosen: SamplePlan) -> Outline:
    info, n_chosen = clip.info, count_decoded(clip, chosen.indices)
    n_packets = info.n_frames if clip.table is None else len(clip.table.pts)
    n_bytes = clip_bytes(info.codec, info.pixel_format, info.height, info.width, n_packets)
    if clip.table is None:  # counted by decoding all, then decoded up to the last one chosen
        found = _outline_of_frames(path, info, chosen, n_packets, info.n_frames + n_chosen)
        return replace(found, n_counted=info.n_frames, n_decoder_bytes=n_bytes)
    found = _outline_of_frames(path, info, chosen, n_packets, n_chosen)
    runs = plan_segments(clip.table, list(chosen.indices))
    return replace(found, n_jumps=sum(run.first > 0 for run in runs), n_decoder_bytes=n_bytes)


def _outline_of_frames(path: Path, info: VideoInfo, chosen: SamplePlan, n_packets: int, n_decoded: int) -> Outline:
    shape = MediaShape(
        kind="video",
        n_frames=len(chosen.indices),
        height=info.height,
        width=info.width,
        source=info.source,
        digest="",
        timestamps=tuple(info.timestamps[chosen.indices].tolist()),
        indices=tuple(chosen.indices.tolist()),
        duration=info.duration,
    )
    warnings = (*info.warnings, *chosen.warnings)
    return Outline(shape, path.stat().st_size, n_packets, n_decoded, info.n_frames, warnings)


def _outline_of_still(path: Path, kind: pictures.PictureKind) -> Outline:
    height, width = pictures.picture_size(path)
    shape = _image_shape(height, width, str(path))
    n_bytes = still_bytes(kind.format, height, width)
    return Outline(shape, path.stat().st_size, 0, 1, 1, pictures.page_warnings(kind), n_decoder_bytes=n_bytes)


def _outline_of_array(array: NDArray[np.uint8], sampling: FrameSampling) -> Outline:
    frames = as_frames(array, sampling, "auto")
    *counts, height, width, _ = frames.shape
    if not counts:
        return Outline(_image_shape(height, width, "array"), 0, 0, 0, 1, ())
    (n,) = counts
    shape = MediaShape("video", n, height, width, "array", "", (math.nan,) * n, tuple(range(n)), math.nan)
    return Outline(shape, 0, 0, 0, n, ())


def _image_shape(height: int, width: int, source: str) -> MediaShape:
    return MediaShape("image", 1, height, width, source, "", (), (), math.nan)
