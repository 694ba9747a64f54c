"""The media layer's front door: paths and arrays in, Video and Image out.

Knows: the order of the steps. Leaves to others: each of them (files, index, sampling, decode, pictures, arrays,
canvas).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aim_local.errors import MediaError, UsageError
from aim_local.media import decode, pictures
from aim_local.media.arrays import ARRAY_SHAPES, Kind, media_of_array
from aim_local.media.canvas import Canvas, Fit, Keep, Progress
from aim_local.media.files import check_file, digest_file
from aim_local.media.index import Clip, index_video
from aim_local.media.sampling import plan_samples
from aim_local.media.types import DEFAULT_SAMPLING, FrameSampling, Image, Size, Video, VideoInfo

MediaItem = str | os.PathLike[str] | NDArray[Any]


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """What a video (or animated picture) holds, from its packets, without decoding it.

    AVI, MPEG-PS and raw streams do not say when their frames are shown: these are decoded once to count them.
    Raises MediaError for whatever is no readable video.
    """
    checked = check_file(path)
    kind = pictures.picture_kind(checked)
    return pictures.animation_info(checked, kind) if kind else index_video(checked).info


def read_video(
    path: str | os.PathLike[str],
    sampling: FrameSampling = DEFAULT_SAMPLING,
    progress: Progress | None = None,
    resize: Size | None = None,
    *,
    fit: Fit | None = None,
) -> Video:
    """The frames `sampling` picks; only they are kept in memory. A still picture is a video of one frame.

    progress: called as (frames done, frames wanted) after each frame
    resize:   (height, width) in pixels; each frame is resized as it comes (Pillow, bicubic), else they keep their size
    fit:      maps one frame, uint8 [h, w, 3] of the clip's size, to what is kept of it, uint8 [H, W, 3] of one size for
              all frames, without changing what it was given. It is called as each frame comes, so that frames of the
              source's size are never collected; not together with resize
    Damaged frames are left out, and a warning counts them. Raises MediaError, UsageError.
    """
    keep = Keep(resize, fit)
    checked = check_file(path)
    kind = pictures.picture_kind(checked)
    clip = None if kind else index_video(checked)
    info = clip.info if clip else _animation(checked, kind)
    plan = plan_samples(info, sampling)
    canvas = Canvas(info.source, (info.height, info.width), plan.indices, keep, progress)
    near = _fill(canvas, checked, clip)
    frames, found, damage = canvas.finish()
    indices = plan.indices[found]
    return Video(
        frames=frames,
        timestamps=info.timestamps[indices],
        indices=indices,
        source=info.source,
        duration=info.duration,
        n_source_frames=info.n_frames,
        source_fps=info.fps,
        warnings=(*info.warnings, *plan.warnings, *damage, *near),
        digest=digest_file(checked),
        source_size=(info.height, info.width),
    )


def read_image(path: str | os.PathLike[str]) -> Image:
    """A still picture (of an animated one the first frame, with a warning). Raises MediaError.

    Colours as by Pillow's convert("RGB"), which drops alpha, as transformers does; 16-bit grey keeps its high byte.
    """
    checked = check_file(path)
    kind = pictures.picture_kind(checked)
    if kind is None:
        info = index_video(checked).info
        raise MediaError(f"{checked}: is a video ({info.codec}, {info.duration:.1f} s), not an image; pass it as one")
    pixels, warnings = pictures.read_picture(checked, kind)
    return Image(pixels=pixels, source=str(checked), warnings=warnings, digest=digest_file(checked))


def open_media(
    item: MediaItem,
    sampling: FrameSampling = DEFAULT_SAMPLING,
    kind: Kind = "auto",
    progress: Progress | None = None,
    resize: Size | None = None,
    *,
    fit: Fit | None = None,
) -> Video | Image:
    """A path or an array as Video or Image; sampling, progress, resize and fit are for videos only (see `read_video`).

    kind: "auto" decides by content (an animated picture is a video, a still one an image); "video" takes a still
          picture as a video of one frame; "image" takes the first frame of an animated one and refuses videos
    item: path, or uint8 RGB array: [T, H, W, 3] is one video of frames already sampled, [H, W, 3] one image
    Raises MediaError, UsageError.
    """
    if kind not in ("auto", "video", "image"):
        raise UsageError(f"kind is {kind!r}; it must be 'auto', 'video' or 'image'")
    keep = Keep(resize, fit)
    check_item(item)
    if isinstance(item, np.ndarray):
        return media_of_array(item, sampling, kind, keep)
    if kind == "image" or (kind == "auto" and _is_still(check_file(item))):
        return read_image(item)
    return read_video(item, sampling, progress, resize, fit=fit)


def check_item(item: object) -> None:
    """UsageError for anything but a path or an array."""
    if not isinstance(item, str | os.PathLike | np.ndarray):
        raise UsageError(f"media is a {type(item).__name__}; give a path or a numpy array: {ARRAY_SHAPES}")


def _is_still(path: Path) -> bool:
    kind = pictures.picture_kind(path)
    return kind is not None and not kind.animated


def _animation(path: Path, kind: pictures.PictureKind | None) -> VideoInfo:
    assert kind is not None, "a file is a picture or a clip"
    return pictures.animation_info(path, kind)


def _fill(canvas: Canvas, path: Path, clip: Clip | None) -> list[str]:
    if clip is not None:
        return decode.decode_onto(canvas, clip)
    pictures.draw_onto(canvas, path)
    return []
