"""What a file is by its head, and whether that is within the limits, before anything of it is decoded.

Knows sizes and numbers of frames. Reading heads is the media layer's; its errors get the name that a request knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import MediaError
from ...media.container import open_stream
from ...media.files import check_file
from ...media.pictures import PictureKind, picture_kind
from ..failures import RequestError
from ..limits import Limits
from .claims import check_claims, check_pixels, is_too_long, too_long

_BOMB = "the picture is too large ("  # the media layer's words, with Pillow's in brackets


@dataclass(frozen=True)
class Head:
    """n_frames: of an animated picture, else 1 (those of a video are chosen by its times)."""

    kind: Literal["picture", "animation", "video"]
    n_frames: int


def check_head(path: Path, name: str, limits: Limits) -> Head:
    """Raises RequestError for what is no media, is damaged at its head, or goes beyond the limits."""
    try:
        check_claims(check_file(path), name, limits)
        found = picture_kind(path)
        if found is None:
            return _checked_video(path, name, limits)
    except MediaError as e:
        raise media_failure(e, path, name) from e
    except MemoryError as e:  # a head takes next to none
        message = f"{name}: claims more than memory can hold; it is damaged: copy or download it again"
        raise RequestError(400, message, code="invalid_media") from e
    return _checked_picture(found, name, limits)


def media_failure(e: MediaError, path: Path, name: str) -> RequestError:
    """An error of the media layer as a refusal, without the file's path."""
    message = without_path(str(e), path, name)
    if _BOMB in message:
        return RequestError(413, f"{message}: or send it smaller", code="limit_exceeded")
    return RequestError(400, message, code="invalid_media")


def without_path(message: str, path: Path, name: str) -> str:
    """A message of the media layer with the name that the request knows instead of the file's path."""
    return message.replace(str(path), name)


def _checked_video(path: Path, name: str, limits: Limits) -> Head:
    with open_stream(path) as (_, stream):
        codec = stream.codec_context
        check_pixels(f"{name}: a video ({codec.name})", codec.height, codec.width, limits)
    return Head("video", 1)


def _checked_picture(found: PictureKind, name: str, limits: Limits) -> Head:
    height, width = found.stored_size
    check_pixels(f"{name}: a picture ({found.format})", height, width, limits)
    if not found.animated:
        return Head("picture", 1)
    if is_too_long(found.n_frames, height, width, limits):
        raise too_long(name, found.format, f"{found.n_frames:,}", (height, width), limits)
    return Head("animation", found.n_frames)
