"""What a file is by its head, and whether that is within the limits, before anything of it is decoded.

Knows sizes and numbers of frames. Reading heads is the media layer's; its errors get the name that a request knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from ...errors import MediaBudgetError, MediaError, MediaMemoryError
from ...media.budget import check_frame, most_steps
from ...media.claims import gif_frames
from ...media.container import open_stream
from ...media.files import check_file
from ...media.pictures import PictureKind, picture_kind
from ..failures import RequestError
from ..limits import Limits
from ..request_words import in_fields
from .words import beyond


@dataclass(frozen=True)
class Head:
    """n_frames: of an animated picture, else 1 (those of a video are chosen by its times). n_pixels: of a still one."""

    kind: Literal["picture", "animation", "video"]
    n_frames: int
    n_pixels: int = 0


def check_head(path: Path, name: str, limits: Limits) -> Head:
    """Raises RequestError for what is no media, is damaged at its head, or goes beyond the limits."""
    try:
        _check_magic(check_file(path), name, limits)
        found = picture_kind(path, limits.n_pixels)
        if found is None:
            with open_stream(path, limits.n_pixels):
                return Head("video", 1)
    except MediaError as e:
        raise media_failure(e, path, name) from e
    except OSError as e:
        raise RequestError(400, f"{name}: cannot be read", code="invalid_media") from e
    return _checked_picture(found, name, limits)


def media_failure(e: MediaError, path: Path, name: str) -> RequestError:
    """An error of the media layer as a refusal, without the file's path."""
    message = without_path(str(e), path, name)
    if isinstance(e, MediaBudgetError):
        return RequestError(413, in_fields(message), code="limit_exceeded")
    if isinstance(e, MediaMemoryError):  # a head takes next to none
        message = f"{name}: claims more than memory can hold; it is damaged: copy or download it again"
    return RequestError(400, message, code="invalid_media")


def without_path(message: str, path: Path, name: str) -> str:
    """A message of the media layer with the name that the request knows instead of the file's path."""
    return message.replace(str(path), name)


def _check_magic(path: Path, name: str, limits: Limits) -> None:
    """Formats that are refused, or counted, before a decoder sees them."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"\0\0\1\0":
        raise RequestError(400, f"{name}: is an icon (ICO), which is not taken; save it as PNG", code="invalid_media")
    if head[:3] == b"GIF":
        for n, (height, width) in enumerate(islice(gif_frames(path), most_steps(limits.n_pixels) + 1), 1):
            check_frame(path, "a picture (GIF)", height, width, limits.n_pixels)
            if _is_too_long(n, height, width, limits):
                raise _too_long(name, "GIF", f"more than {n - 1:,}", (height, width), limits)


def _checked_picture(found: PictureKind, name: str, limits: Limits) -> Head:
    height, width = found.stored_size
    if not found.animated:
        return Head("picture", 1, height * width)
    if _is_too_long(found.n_frames, height, width, limits):
        raise _too_long(name, found.format, f"{found.n_frames:,}", (height, width), limits)
    return Head("animation", found.n_frames)


def _is_too_long(n_frames: int, height: int, width: int, limits: Limits) -> bool:
    """Of an animated picture, which is decoded from its first frame to its last to know its times.

    More frames than a clip may have are let in only where all of them together are no more work than one large picture.
    """
    return n_frames > limits.n_frames and n_frames * height * width > limits.n_pixels


def _too_long(name: str, kind: str, n_frames: str, shape: tuple[int, int], limits: Limits) -> RequestError:
    """shape: (height, width)."""
    came = f"{name}: an animated picture ({kind}) of {n_frames} frames of {shape[1]} x {shape[0]}"
    hint = " (a video is sampled instead)"
    return beyond("n_frames", came, f"{limits.n_frames} frames of that size{hint} are")
