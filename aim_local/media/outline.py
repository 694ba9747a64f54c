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

from aim_local.media import pictures
from aim_local.media.arrays import as_frames
from aim_local.media.decode import needed
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
    """

    shape: MediaShape
    n_file_bytes: int
    n_packets: int
    n_decoded: int
    n_source_frames: int
    warnings: tuple[str, ...]
    n_counted: int = 0
    n_jumps: int = 0

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
            return _outline_of_clip(self.path, self.clip, chosen)
        return _outline_of_frames(self.path, self.info, chosen, self.info.n_frames, len(chosen.indices))


def index_media(item: MediaItem) -> Indexed:
    """Reads the head of an item, of a video its packets. Raises MediaError, UsageError."""
    check_item(item)
    if isinstance(item, np.ndarray):
        return Indexed(item, None, None, None, None)
    path = check_file(item)
    kind = pictures.picture_kind(path)
    if kind is None:
        clip = index_video(path)
        return Indexed(item, path, None, clip, clip.info)
    return Indexed(item, path, kind, None, pictures.animation_info(path, kind) if kind.animated else None)


def outline_media(item: MediaItem, sampling: FrameSampling = DEFAULT_SAMPLING) -> Outline:
    """What `open_media(item, sampling)` will give. Raises MediaError, UsageError."""
    return index_media(item).outline(sampling)


def _outline_of_clip(path: Path, clip: Clip, chosen: SamplePlan) -> Outline:
    info = clip.info
    if clip.table is None:  # counted by decoding all, then decoded up to the last one chosen
        n_decoded = info.n_frames + int(chosen.indices[-1]) + 1
        found = _outline_of_frames(path, info, chosen, info.n_frames, n_decoded)
        return replace(found, n_counted=info.n_frames)
    runs = plan_segments(clip.table, needed(clip, chosen.indices.tolist()))
    n_decoded = sum(run.last - run.first + 1 for run in runs)
    found = _outline_of_frames(path, info, chosen, len(clip.table.pts), n_decoded)
    return replace(found, n_jumps=sum(run.first > 0 for run in runs))


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
    return Outline(shape, path.stat().st_size, 0, 1, 1, pictures.page_warnings(kind))


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
