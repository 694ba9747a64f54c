"""A media item without its pixels: sizes, times, and how much a reader will have to decode.

Knows: what `open_media` would give for a path. Leaves to others: reading it. The item's pixels are black and take no
memory (one value seen through zero strides).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from aim_local.media import pictures
from aim_local.media.files import check_file
from aim_local.media.index import Clip, index_video
from aim_local.media.reader import MediaItem, open_media
from aim_local.media.sampling import SamplePlan, plan_samples
from aim_local.media.seek import plan_segments
from aim_local.media.types import DEFAULT_SAMPLING, Frames, FrameSampling, Image, Video, VideoInfo


@dataclass(frozen=True, eq=False)
class Outline:
    """item: as `open_media` gives it, black. n_file_bytes: of the file. n_packets: of its index, 0 for a picture.

    n_decoded: frames that must be decoded for the chosen ones. height, width: pixels of a picture as it is stored.
    """

    item: Video | Image
    n_file_bytes: int
    n_packets: int
    n_decoded: int
    height: int
    width: int

    @property
    def n_pictures(self) -> int:
        return len(self.item.frames) if isinstance(self.item, Video) else 1


def outline_media(item: MediaItem, sampling: FrameSampling = DEFAULT_SAMPLING) -> Outline:
    """What `open_media(item, sampling)` will give. Raises MediaError, UsageError."""
    if not isinstance(item, str | os.PathLike):
        return _outline_given(open_media(item, sampling))
    path = check_file(item)
    kind = pictures.picture_kind(path)
    n_bytes = path.stat().st_size
    if kind is not None and not kind.animated:
        given = _outline_given(open_media(path, sampling))
        return Outline(given.item, n_bytes, 0, 1, given.height, given.width)
    clip = None if kind else index_video(path)
    info = clip.info if clip else pictures.animation_info(path, kind) if kind else None
    assert info is not None, "a file is a picture or a clip"
    chosen = plan_samples(info, sampling)
    n_packets = len(clip.table.pts) if clip and clip.table else info.n_frames
    return Outline(_black_video(info, chosen), n_bytes, n_packets, _n_decoded(clip, chosen), info.height, info.width)


def _n_decoded(clip: Clip | None, chosen: SamplePlan) -> int:
    if clip is None:
        return len(chosen.indices)
    if clip.table is None:  # counted by decoding all, then decoded up to the last one chosen
        return clip.info.n_frames + int(chosen.indices[-1]) + 1
    return sum(run.last - run.first + 1 for run in plan_segments(clip.table, list(chosen.indices)))


def _black(*shape: int) -> Frames:
    return np.broadcast_to(np.zeros(1, np.uint8), shape)


def _black_video(info: VideoInfo, chosen: SamplePlan) -> Video:
    return Video(
        frames=_black(len(chosen.indices), info.height, info.width, 3),
        timestamps=info.timestamps[chosen.indices],
        indices=chosen.indices,
        source=info.source,
        duration=info.duration,
        n_source_frames=info.n_frames,
        source_fps=info.fps,
        warnings=(*info.warnings, *chosen.warnings),
        digest="",
    )


def _outline_given(item: Video | Image) -> Outline:
    """Of what is in memory already."""
    if isinstance(item, Video):
        height, width = item.frames.shape[1:3]
        return Outline(item, 0, 0, 0, height, width)
    height, width = item.pixels.shape[:2]
    black = Image(pixels=_black(height, width, 3), source=item.source, warnings=item.warnings, digest=item.digest)
    return Outline(black, 0, 0, 0, height, width)
