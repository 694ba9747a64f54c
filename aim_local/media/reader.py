"""The media layer's front door: paths and arrays in, Video and Image out.

Knows: the order of the steps. Leaves to others: each of them (files, index, sampling, decode, pictures, arrays,
canvas).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aim_local.config import MAX_PIXELS
from aim_local.errors import MediaError, UsageError
from aim_local.media import decode, pictures
from aim_local.media.arrays import Kind, as_frames, media_of_array
from aim_local.media.budget import check_decoded
from aim_local.media.canvas import Canvas, Fit, Keep, OnFrame, Progress
from aim_local.media.files import check_file, digest_array, digest_file
from aim_local.media.given import ALLOWED, Given, MediaItem, take
from aim_local.media.index import Clip, index_video
from aim_local.media.pictures import PictureKind
from aim_local.media.sampling import plan_samples
from aim_local.media.shape import MediaShape
from aim_local.media.types import DEFAULT_SAMPLING, Frames, FrameSampling, Image, Indices, Size, Video, VideoInfo
from aim_local.paths import Name

# goes up where the same file gives other frames, times or colours than before: what was encoded of it is stale
READING = 5


def probe_video(path: Name, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """What a video (or animated picture) holds, from its packets, without decoding it.

    AVI, MPEG-PS and raw streams do not say when their frames are shown: these are decoded once to count them.
    Raises MediaError for whatever is no readable video.
    """
    checked = check_file(path)
    kind = pictures.picture_kind(checked, max_pixels)
    return pictures.animation_info(checked, kind) if kind else index_video(checked, max_pixels).info


def read_video(
    path: Name,
    sampling: FrameSampling = DEFAULT_SAMPLING,
    progress: Progress | None = None,
    resize: Size | None = None,
    *,
    fit: Fit | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Video:
    """The frames `sampling` picks; only they are kept in memory. A still picture is a video of one frame.

    progress: called as (frames done, frames wanted) after each frame
    resize:   (height, width) in pixels; each frame is resized as it comes (Pillow, bicubic), else they keep their size
    fit:      maps one frame, uint8 [h, w, 3] of the clip's size, to what is kept of it, uint8 [H, W, 3] of one size for
              all frames, without changing what it was given. It is called as each frame comes, so that frames of the
              source's size are never collected; not together with resize
    max_pixels: as in LoadConfig
    Damaged frames are left out, and a warning counts them. Raises MediaError, UsageError.
    """
    keep, checked = Keep(resize, fit), check_file(path)
    kind = pictures.picture_kind(checked, max_pixels)
    found = _opened_video(checked, kind, sampling, None, max_pixels).read(keep, progress, None)
    assert isinstance(found, Video), "a video was opened"
    return found


def read_image(path: Name, digest: str | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """A still picture (of an animated one the first frame, with a warning). Raises MediaError.

    Colours as by Pillow's convert("RGB"); what is transparent shows white, more than 8 bits are scaled (colours.py).
    """
    checked = check_file(path)
    return _read_image(checked, pictures.picture_kind(checked, max_pixels), digest, max_pixels)


def _read_image(checked: Path, kind: PictureKind | None, digest: str | None, max_pixels: int) -> Image:
    if kind is None:
        info = index_video(checked, max_pixels).info
        raise MediaError(f"{checked}: is a video ({info.codec}, {info.duration:.1f} s), not an image; pass it as one")
    pixels, warnings = pictures.read_picture(checked, kind)
    return Image(pixels=pixels, source=str(checked), warnings=warnings, digest=digest or digest_file(checked))


def open_media(
    item: Given,
    sampling: FrameSampling = DEFAULT_SAMPLING,
    kind: Kind = "auto",
    progress: Progress | None = None,
    resize: Size | None = None,
    *,
    fit: Fit | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Video | Image:
    """A path or an array as Video or Image; sampling, progress, resize and fit are for videos only (see `read_video`).

    kind: "auto" decides by content (an animated picture is a video, a still one an image); "video" takes a still
          picture as a video of one frame; "image" takes the first frame of an animated one and refuses videos
    item: path, or uint8 RGB array: [T, H, W, 3] is one video of frames already sampled, [H, W, 3] one image; or what
          given.py makes such an array of, an iterator to as many frames as sampling asks for
    max_pixels: as in LoadConfig; arrays are in memory already, and are not counted
    Raises MediaError, UsageError.
    """
    keep, taken = Keep(resize, fit), take(item, sampling)
    found = open_item(taken.item, sampling, kind, max_pixels=max_pixels).read(keep, progress, None)
    return replace(found, warnings=(*taken.warnings, *found.warnings))


@dataclass(frozen=True)
class Opened:
    """A media item whose frames are chosen, and not decoded yet.

    shape: as it is planned; fewer frames come where some cannot be decoded. read: decodes, as often as it is called.
    """

    shape: MediaShape
    read: Callable[[Keep, Progress | None, OnFrame | None], Video | Image]


def open_item(
    item: MediaItem,
    sampling: FrameSampling = DEFAULT_SAMPLING,
    kind: Kind = "auto",
    digest: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Opened:
    """As `open_media`, in two steps. digest: of the item, where it is known already (see `digest_item`).

    Raises MediaError, UsageError.
    """
    if kind not in ("auto", "video", "image"):
        raise UsageError(f"kind is {kind!r}; it must be 'auto', 'video' or 'image'")
    check_item(item)
    if isinstance(item, np.ndarray):
        return _opened_array(item, sampling, kind)
    path = check_file(item)
    found = pictures.picture_kind(path, max_pixels)
    if kind == "image" or (kind == "auto" and found is not None and not found.animated):
        image = _read_image(path, found, digest, max_pixels)
        return Opened(image.shape, lambda keep, progress, on_frame: image)
    return _opened_video(path, found, sampling, digest, max_pixels)


def digest_item(item: MediaItem) -> str:
    """sha256 (hex) of a file's bytes, or of an array's shape and bytes. Raises MediaError, UsageError."""
    check_item(item)
    return digest_array(item) if isinstance(item, np.ndarray) else digest_file(check_file(item))


def _opened_array(item: NDArray[Any], sampling: FrameSampling, kind: Kind) -> Opened:
    frames = as_frames(item, sampling, kind)
    *counts, height, width, _ = frames.shape
    n = counts[0] if counts else 1
    times, indices = ((math.nan,) * n, tuple(range(n))) if counts else ((), ())
    shape = MediaShape(
        "video" if counts else "image", n, height, width, "array", digest_array(frames), times, indices, math.nan
    )
    return Opened(shape, lambda keep, progress, on_frame: media_of_array(item, sampling, kind, keep, on_frame))


def _opened_video(
    path: Path, kind: PictureKind | None, sampling: FrameSampling, digest: str | None, max_pixels: int
) -> Opened:
    clip = None if kind else index_video(path, max_pixels)
    info = clip.info if clip else _animation(path, kind)
    plan, known = plan_samples(info, sampling), digest or digest_file(path)
    if clip:
        check_decoded(path, decode.count_decoded(clip, plan.indices), info.height, info.width, max_pixels)

    def read(keep: Keep, progress: Progress | None, on_frame: OnFrame | None) -> Video:
        canvas = Canvas(info.source, (info.height, info.width), plan.indices, keep, progress, on_frame)
        near, is_sound = fill(canvas, path, clip)
        frames, found, damage = canvas.finish()
        video = _video(info, frames, plan.indices[found], (*info.warnings, *plan.warnings, *damage, *near), known)
        return replace(video, is_sound=is_sound and bool(found.all()))

    return Opened(_planned(info, plan.indices, known), read)


def _planned(info: VideoInfo, indices: Indices, digest: str) -> MediaShape:
    """The shape of a video of whose frames all can be decoded."""
    return MediaShape(
        kind="video",
        n_frames=len(indices),
        height=info.height,
        width=info.width,
        source=info.source,
        digest=digest,
        timestamps=tuple(info.timestamps[indices].tolist()),
        indices=tuple(indices.tolist()),
        duration=info.duration,
    )


def _video(info: VideoInfo, frames: Frames, indices: Indices, warnings: tuple[str, ...], digest: str) -> Video:
    return Video(
        frames=frames,
        timestamps=info.timestamps[indices],
        indices=indices,
        source=info.source,
        duration=info.duration,
        n_source_frames=info.n_frames,
        source_fps=info.fps,
        warnings=warnings,
        digest=digest,
        source_size=(info.height, info.width),
    )


def check_item(item: object) -> None:
    """UsageError for anything but a path or an array."""
    if not isinstance(item, str | bytes | os.PathLike | np.ndarray):
        raise UsageError(f"media is {type(item).__name__}; give {ALLOWED}")


def _animation(path: Path, kind: PictureKind | None) -> VideoInfo:
    assert kind is not None, "a file is a picture or a clip"
    return pictures.animation_info(path, kind)


def fill(canvas: Canvas, path: Path, clip: Clip | None) -> tuple[list[str], bool]:
    """Decodes what the canvas misses, of a clip or (None) an animated picture; returns as `decode_onto`."""
    if clip is not None:
        return decode.decode_onto(canvas, clip)
    pictures.draw_onto(canvas, path)
    return [], True
